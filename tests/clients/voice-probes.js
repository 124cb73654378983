// What tests ask of a recording. Runs before the page's own scripts.
"use strict";

window.voice = {
  /** The bytes of each chunk that left, by its number; a repeat must have the same bytes. */
  chunks: new Map(),
  repeats: 0,
  differing: [],
  tracks: [],

  note(seq, bytes) {
    const known = voice.chunks.get(seq);
    const isSame = known && known.length === bytes.length && known.every((byte, at) => byte === bytes[at]);
    if (known) voice.repeats += 1;
    if (known && !isSame) voice.differing.push(seq);
    voice.chunks.set(seq, bytes);
  },

  /** All audio that left, as base64. */
  sent() {
    const all = [...voice.chunks].sort(([a], [b]) => a - b).flatMap(([, bytes]) => [...bytes]);
    let text = "";
    for (const byte of all) text += String.fromCharCode(byte);
    return btoa(text);
  },
};

const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (data instanceof Uint8Array) {
    const at = data.indexOf(10);
    voice.note(JSON.parse(new TextDecoder().decode(data.subarray(0, at))).seq, data.slice(at + 1));
  }
  return send.call(this, data);
};

const fetched = window.fetch;
window.fetch = (input, init) => {
  const url = new URL(input, location.href);
  if (init?.body instanceof Uint8Array) voice.note(Number(url.searchParams.get("seq")), init.body.slice());
  return fetched(input, init);
};

const asked = navigator.mediaDevices?.getUserMedia;
if (asked) {
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    if (voice.refusal) throw new DOMException("refused", voice.refusal);
    const stream = await asked.call(navigator.mediaDevices, wanted);
    voice.tracks.push(...stream.getTracks());
    return stream;
  };
}
