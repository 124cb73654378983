// useChat itself, in React: a page that asks, shows and stops. `window.options` says of whom; the
// page is driven through `window.chat`, and what it shows is read from the document.
import { createElement as h } from 'react';
import { createRoot } from 'react-dom/client';
import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';

const { api, id, resume, body } = window.options;
const transport = new DefaultChatTransport({ api, body });

const textOf = (message) =>
  message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

function Page() {
  const chat = useChat({ id, resume, transport });
  window.chat = chat;
  return h('main', { 'data-status': chat.status },
    chat.messages.map((message) => h('p', { key: message.id, className: message.role }, textOf(message))),
    chat.error && h('b', null, chat.error.message));
}

const root = document.createElement('div');
document.body.append(root);
createRoot(root).render(h(Page));
