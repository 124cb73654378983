// Stores the API key as long as the tab is open, and names for longer. A browser may refuse both kinds
// of storage at any call (cookies blocked, storage full): then the values are in this tab's memory.
"use strict";

const NAME_CHARACTERS_MAX = 128; // of a session's name; the server's limit

class Memory {
  /** open() -> Storage: may throw, because reading `window.localStorage` may throw. */
  constructor(open) {
    this.open = open;
    this.fallback = new Map();
  }

  get(name) {
    try {
      return this.fallback.get(name) ?? this.open().getItem(name) ?? "";
    } catch {
      return this.fallback.get(name) ?? "";
    }
  }

  set(name, value) {
    try {
      this.open().setItem(name, value);
      this.fallback.delete(name);
    } catch {
      this.fallback.set(name, value);
    }
  }
}

export const ofTab = new Memory(() => window.sessionStorage);
export const ofBrowser = new Memory(() => window.localStorage);

/** Return the session's name in the fragment of a URL; "" if there is no valid name. */
export function sessionIn(hash) {
  try {
    return asSession(decodeURIComponent(hash.slice(1)));
  } catch {
    return ""; // a malformed percent encoding
  }
}

/** Return `name` if it is valid as a session's name on the server and in a URL's path; else "". */
export function asSession(name) {
  const isPrintable = !/[\p{Cc}\p{Cs}]/u.test(name); // no control character, no lone surrogate
  const isPlace = name === "." || name === ".."; // a browser removes these from a path
  return isPrintable && !isPlace && [...name].length <= NAME_CHARACTERS_MAX ? name : "";
}

/** Return a channel between the tabs of this browser; null if the browser refuses one. */
export function openChannel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return null;
  }
}
