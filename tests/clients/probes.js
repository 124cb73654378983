// What tests ask of the chat page. Runs before the page's own scripts; tests call `probes.…()`.
"use strict";

window.probes = {
  blocked: [],
  frames: 0,
  writes: [],
  long: [],

  /** What no answer may contain: tags, attributes and addresses that do something. */
  odd() {
    const allowed = ("a b blockquote br button code del div em h3 h4 h5 h6 hr img li ol p pre s span strong "
      + "table tbody td th thead tr ul").split(" ");
    const answer = document.querySelector(".answer");
    const inside = [...answer.querySelectorAll("*")].filter((each) => !each.closest(".math"));
    const drawn = [...answer.querySelectorAll(".math *")];
    const isOdd = ({ name, value }) =>
      /^on|^srcdoc|^action|^formaction|^xlink|^id$|^name$/.test(name)
      || (name === "href" && !/^(https?:|mailto:)/.test(value))
      || (name === "src" && !/^data:image\/(png|gif|jpeg|webp);/.test(value));
    return [
      ...inside.map((each) => each.localName).filter((name) => !allowed.includes(name)),
      ...drawn.map((each) => each.localName).filter((name) => ["a", "img", "script", "iframe"].includes(name)),
      ...[...inside, ...drawn].flatMap((each) => [...each.attributes]).filter(isOdd)
        .map(({ name, value }) => `${name}=${value}`),
    ];
  },

  hover() {
    for (const each of document.querySelectorAll(".answer *")) each.dispatchEvent(new MouseEvent("mouseover"));
  },

  /** The elements of the answer, without the order of their attributes. */
  markup() {
    return [...document.querySelectorAll(".answer, .answer *")].map((each) => [
      each.localName, ...[...each.attributes].map(({ name, value }) => `${name}=${value}`).sort(), each.textContent,
    ]);
  },

  /** Select from the first paragraph to three characters into the last one. */
  select() {
    const first = document.querySelector(".answer p").firstChild;
    const block = document.querySelector(".answer .block:last-child");
    getSelection().setBaseAndExtent(first, 4, block.querySelector("p").firstChild, 3);
    probes.block = block;
    return getSelection().toString();
  },

  /** Note in which frame each change of the conversation falls, and each long task. */
  watch() {
    const frame = () => {
      probes.frames += 1;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    const turns = document.querySelector("#turns");
    new MutationObserver(() => probes.writes.push(probes.frames))
      .observe(turns, { childList: true, characterData: true, subtree: true });
    new PerformanceObserver((list) => probes.long.push(...list.getEntries().map(({ duration }) => duration)))
      .observe({ type: "longtask" });
  },

  /** Controls of which a part lies outside of the window. */
  cut() {
    const isCut = ({ left, right, bottom }) => left < 0 || right > innerWidth + 1 || bottom > innerHeight + 1;
    return [...document.querySelectorAll("header *, #composer *")].filter((each) => each.checkVisibility())
      .filter((each) => isCut(each.getBoundingClientRect())).map((each) => each.outerHTML);
  },
};

document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
  probes.blocked.push(`${violatedDirective} ${blockedURI}`);
});
