// Renders a small part of Markdown as elements. A model's text only becomes text nodes: this module
// does not use innerHTML, and makes links only for http and https URLs.
"use strict";

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;
const ITEM = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/;

/** Return a fragment with the blocks of `text`. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  const lines = text.split("\n");
  for (let i = 0; i < lines.length;) {
    i = code(lines, i, fragment) || heading(lines, i, fragment) || list(lines, i, fragment)
      || paragraph(lines, i, fragment);
  }
  return fragment;
}

// Each function renders the block that starts at line `i`, if it is of its kind. It returns the
// number of the line after the block, or 0 if the block is of another kind.

function code(lines, i, parent) {
  const fence = /^\s*(```+|~~~+)/.exec(lines[i]);
  if (!fence) return 0;
  let end = i + 1;
  while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
  const block = element("code", lines.slice(i + 1, end).join("\n"));
  const pre = document.createElement("pre");
  pre.append(block);
  parent.append(pre);
  return end + 1;
}

function heading(lines, i, parent) {
  const match = /^(#{1,6})\s+(.*)$/.exec(lines[i]);
  if (!match) return 0;
  const level = Math.min(6, match[1].length + 2);
  parent.append(inline(document.createElement(`h${level}`), match[2]));
  return i + 1;
}

function list(lines, i, parent) {
  const first = ITEM.exec(lines[i]);
  if (!first) return 0;
  const found = document.createElement(first[1] ? "ol" : "ul");
  if (first[1]) found.start = Number(first[1]);
  let match;
  for (; i < lines.length && (match = ITEM.exec(lines[i])); i += 1) {
    found.append(inline(document.createElement("li"), match[2]));
  }
  parent.append(found);
  return i;
}

function paragraph(lines, i, parent) {
  if (lines[i].trim() === "") return i + 1;
  let end = i + 1;
  while (end < lines.length && lines[end].trim() !== "" && !/^\s*(```|~~~|#{1,6}\s)/.test(lines[end])
    && !ITEM.test(lines[end])) end += 1;
  const found = document.createElement("p");
  lines.slice(i, end).forEach((line, at) => {
    if (at) found.append(document.createElement("br"));
    inline(found, line);
  });
  parent.append(found);
  return end;
}

function inline(parent, text) {
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    parent.append(text.slice(at, match.index));
    const [whole, mono, strong, em, label, url] = match;
    if (mono !== undefined) parent.append(element("code", mono));
    else if (strong !== undefined) parent.append(element("strong", strong));
    else if (em !== undefined) parent.append(element("em", em));
    else parent.append(link(label, url));
    at = match.index + whole.length;
  }
  parent.append(text.slice(at));
  return parent;
}

function link(label, url) {
  const found = element("a", label);
  found.href = url;
  found.rel = "noopener noreferrer";
  found.target = "_blank";
  return found;
}

function element(name, text) {
  const found = document.createElement(name);
  found.textContent = text;
  return found;
}
