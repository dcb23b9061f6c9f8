import assert from "node:assert/strict";
import test from "node:test";

const { Offers } = await import(`${process.env.ELEMENTS}/offers.js`);

const offers = () => new Offers({ request: 7, n: 2, role: "user", position: 1 });
const piece = (index, offset, text, more = {}) => ({ kind: "text", request: 7, attempt: 1, index, offset, text, ...more });
const texts = (made) => made.all.map((one) => one.text);

test("texts come side by side", () => {
  const made = offers();
  made.take({ kind: "reset", request: 7, attempt: 1, index: 0 });
  assert.equal(made.take(piece(0, 0, "Good ")), "text");
  made.take(piece(1, 0, "Hello"));
  made.take(piece(0, 5, "day"));
  assert.deepEqual(texts(made), ["Good day", "Hello"]);
  assert.deepEqual(made.all.map((one) => one.ready), [false, false]);
});

test("a finished one can be taken while another goes on", () => {
  const made = offers();
  made.take(piece(0, 0, "Good day"));
  assert.equal(made.take({ kind: "finished", request: 7, attempt: 1, index: 0, finish: "stop" }), "finished");
  assert.deepEqual(made.all.map((one) => one.ready), [true, false]);
  assert.equal(made.pending, true);
});

test("one of them thinks before it begins", () => {
  const made = offers();
  assert.equal(made.take({ kind: "thinking", request: 7, attempt: 1, index: 1 }), "text");
  assert.deepEqual(made.all.map((one) => [one.thinking, one.begun, one.text]), [[false, false, ""], [true, false, ""]]);
});

test("with a gap it is not finished before the server has said it whole", () => {
  const made = offers();
  made.take(piece(0, 3, "day"));
  assert.equal(made.take({ kind: "finished", request: 7, attempt: 1, index: 0, finish: "stop" }), "nothing");
  made.adopt({ state: "done", texts: [{ index: 0, text: "Good day", finish: "stop" }] });
  assert.deepEqual(made.all[0], { ref: [7, 0], text: "Good day", finish: "stop", begun: true, thinking: false, ready: true });
  assert.equal(made.pending, false);
});

test("another attempt begins anew", () => {
  const made = offers();
  made.take(piece(0, 0, "Good"));
  made.take({ kind: "finished", request: 7, attempt: 1, index: 0, finish: "stop" });
  made.take({ kind: "reset", request: 7, attempt: 2, index: 0 });
  assert.deepEqual(made.all.map((one) => [one.text, one.ready]), [["", false], ["", false]]);
});

test("other requests and other places are left out", () => {
  const made = offers();
  assert.equal(made.take(piece(0, 0, "Old", { request: 6 })), "nothing");
  assert.equal(made.take(piece(0, 0, "New", { request: 8 })), "nothing");
  assert.equal(made.take(piece(2, 0, "Third")), "nothing");
  assert.deepEqual(texts(made), ["", ""]);
});

test("the end is asked of the server", () => {
  const made = offers();
  assert.equal(made.take({ kind: "done", request: 7, attempt: 1 }), "end");
  made.adopt({ state: "failed", reason: "x", texts: [] });
  assert.equal(made.take(piece(0, 0, "Late")), "nothing");
});

test("a page that was loaded again shows what the server has", () => {
  const made = Offers.from({
    request: 7, n: 3, role: "user", position: 1, hint: "shorter", state: "cancelled", texts: [{ index: 1, text: "Hi", finish: "stopped" }],
  });
  assert.deepEqual(texts(made), ["", "Hi", ""]);
  assert.equal(made.all[1].ready, true);
});
