// What the page remembers: a key for as long as the tab is open, names for longer. A browser may refuse
// both kinds of storage, at any call (cookies blocked, no room): then this tab alone remembers.
"use strict";

const NAME_CHARACTERS_MAX = 128; // of a session, as the server has it

class Memory {
  /** open() -> Storage: may throw, as reading `window.localStorage` alone may. */
  constructor(open) {
    this.open = open;
    this.kept = new Map();
  }

  get(name) {
    try {
      return this.kept.get(name) ?? this.open().getItem(name) ?? "";
    } catch {
      return this.kept.get(name) ?? "";
    }
  }

  set(name, value) {
    try {
      this.open().setItem(name, value);
      this.kept.delete(name);
    } catch {
      this.kept.set(name, value);
    }
  }
}

export const ofTab = new Memory(() => window.sessionStorage);
export const ofBrowser = new Memory(() => window.localStorage);

/** The session's name in an address's fragment; "" where it has none that could be one. */
export function sessionIn(hash) {
  try {
    return asSession(decodeURIComponent(hash.slice(1)));
  } catch {
    return ""; // a percent sign that begins no character
  }
}

/** `name` if a session may be called so; else "": the server, or an address, would not have it. */
export function asSession(name) {
  const isPrintable = !/[\p{Cc}\p{Cs}]/u.test(name); // no control character, no half of a pair
  const isPlace = name === "." || name === ".."; // a browser takes these out of a path
  return isPrintable && !isPlace && [...name].length <= NAME_CHARACTERS_MAX ? name : "";
}

/** Tabs of one browser that tell each other; null where the browser has no such thing for us. */
export function openChannel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return null;
  }
}
