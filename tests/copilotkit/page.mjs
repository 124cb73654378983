// A page with CopilotKit's own chat, whose agent is a run of Tailrace, without a CopilotKit runtime.
import { createElement as h } from 'react';
import { createRoot } from 'react-dom/client';
import { CopilotChat, CopilotKitProvider, HttpAgent, useAgent, useAgentContext, useFrontendTool } from '@copilotkit/react-core/v2';
import { z } from 'zod';
import { resumingFetch } from '../../clients/js/dist/ag-ui.js';

const { url, params } = window.asked;
const agent = new HttpAgent({ url, fetch: resumingFetch({ random: () => 0.1 }) });
window.ran = [];
window.unhandled = [];
window.addEventListener('unhandledrejection', (event) => window.unhandled.push(String(event.reason)));

function Chat() {
  useFrontendTool({
    name: 'look_up',
    followUp: false, // the model server of the test would call it again and again
    description: 'The weather of a city',
    parameters: z.object({}).passthrough(),
    handler: async (args) => { window.ran.push(args); return 'rain'; },
  });
  useAgentContext({ description: 'the colour of the page', value: 'green' });
  const { agent: running } = useAgent({ agentId: 'default' });
  window.agent = running;
  return h(CopilotChat, { agentId: 'default', threadId: window.asked.thread });
}

createRoot(document.getElementById('root')).render(
  h(CopilotKitProvider, {
    agents__unsafe_dev_only: { default: agent },
    properties: { tailrace: { params } },
    showDevConsole: false,
  }, h(Chat)),
);
