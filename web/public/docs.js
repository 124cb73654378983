// Renders /openapi.json as a page, without any library.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"]; // head is left out: it answers like get

function element(name, ...children) {
  const found = document.createElement(name);
  found.append(...children);
  return found;
}

function shape(schema) {
  return element("pre", JSON.stringify(schema, null, 2));
}

function table(...rows) {
  return element("table", ...rows.map((cells) => element("tr", ...cells.map((cell) => element("td", cell)))));
}

function operation(method, path, described) {
  const section = element("section", element("p", described.summary));
  if (described.parameters) {
    section.append(element("h4", "Parameters"), table(...described.parameters.map(
      (parameter) => [parameter.name, parameter.in, parameter.description])));
  }
  const body = described.requestBody?.content["application/json"]?.schema;
  if (body) section.append(element("h4", "Body"), shape(body));
  section.append(element("h4", "Answers"), table(...Object.entries(described.responses).map(
    ([status, answer]) => [status, answer.description, Object.keys(answer.content ?? {}).join(", ")])));
  const summary = element("summary", element("b", method.toUpperCase()), element("code", path),
    element("span", described.summary));
  return element("details", summary, section);
}

const response = await fetch("/openapi.json");
const { paths, components } = await response.json();
for (const [path, methods] of Object.entries(paths)) {
  for (const method of METHODS) {
    if (methods[method]) document.getElementById("paths").append(operation(method, path, methods[method]));
  }
}
for (const [name, schema] of Object.entries(components.schemas)) {
  document.getElementById("shapes").append(
    element("details", element("summary", element("code", name)), element("section", shape(schema))));
}
