import assert from "node:assert/strict";
import test from "node:test";

const { Reply } = await import(`${process.env.ELEMENTS}/reply.js`);

const TEXT = "Good 🥖 day, שלום and e\u0301!";
const POINTS = Array.from(TEXT);

/** A piece from one character to another, counted as Python counts. */
const piece = (from, to, more = {}) => ({
  kind: "text", request: 7, index: 0, attempt: 1, offset: from, text: POINTS.slice(from, to).join(""), ...more,
});
const reset = (attempt = 1) => ({ kind: "reset", request: 7, index: 0, attempt });

function after(...events) {
  const reply = new Reply(7);
  events.forEach((event) => reply.take(event));
  return reply;
}

test("pieces become the text", () => {
  assert.equal(after(reset(), piece(0, 5), piece(5, 8), piece(8, 99)).text, TEXT);
});

test("what comes twice is shown once", () => {
  assert.equal(after(reset(), piece(0, 6), piece(0, 6), piece(4, 9), piece(9, 99)).text, TEXT);
});

test("a gap is not jumped, and mended by the whole text", () => {
  const reply = after(reset(), piece(0, 3), piece(5, 9));
  assert.equal(reply.text, POINTS.slice(0, 3).join(""));
  assert.equal(reply.gap, true);
  reply.take(piece(0, 12, { whole: true }));
  reply.take(piece(12, 99));
  assert.equal(reply.text, TEXT);
  assert.equal(reply.gap, false);
});

test("a stream that is read from its middle waits for the whole text", () => {
  assert.equal(after(piece(9, 12)).text, "");
  assert.equal(after(piece(9, 12), piece(0, 14, { whole: true }), piece(14, 99)).text, TEXT);
});

test("a new attempt begins anew, and the old one is silent", () => {
  const reply = after(reset(), piece(0, 9), reset(2), piece(0, 4, { attempt: 2 }), piece(4, 9), piece(4, 99, { attempt: 2 }));
  assert.equal(reply.text, TEXT);
  assert.equal(reply.attempt, 2);
});

test("that a model thinks is shown until its first word, and forgotten with the attempt", () => {
  const thinking = (attempt = 1) => ({ kind: "thinking", request: 7, index: 0, attempt });
  const reply = after(reset());
  assert.equal(reply.thinking, false);
  assert.equal(reply.take(thinking()), "text");
  assert.deepEqual([reply.thinking, reply.text], [true, ""]);
  reply.take(reset(2));
  assert.equal(reply.thinking, false);
  assert.equal(reply.take(thinking()), "nothing");
  assert.equal(reply.thinking, false);
});

test("a new attempt whose reset was lost", () => {
  assert.equal(after(reset(), piece(0, 9), piece(0, 99, { attempt: 2 })).text, TEXT);
});

test("older replies are left out", () => {
  assert.equal(after({ ...piece(0, 9), request: 6 }, { kind: "done", request: 6, index: 0, attempt: 1 }).text, "");
});

test("a newer reply asks for the page", () => {
  assert.equal(new Reply(7).take({ ...piece(0, 9), request: 8 }), "stale");
});

test("endings", () => {
  for (const kind of ["done", "failed", "refused", "stopped"]) {
    const reply = after(reset(), piece(0, 5));
    assert.equal(reply.take({ kind, request: 7, index: 0, attempt: 1 }), "end");
    assert.equal(reply.ended, kind);
  }
});

test("cut and read again from any event, the text is the same", () => {
  const events = [reset(), piece(0, 3), piece(3, 7), piece(0, 7, { whole: true }), piece(7, 20), piece(20, 99)];
  for (let cut = 0; cut < events.length; cut += 1) {
    assert.equal(after(...events.slice(0, cut + 1), ...events).text, TEXT);
    assert.equal(after(...events.slice(0, cut), ...events.slice(Math.max(0, cut - 2))).text, TEXT);
  }
});
