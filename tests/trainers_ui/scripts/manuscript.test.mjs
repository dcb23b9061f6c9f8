import assert from "node:assert/strict";
import test from "node:test";

const { Manuscript, difference, distance, points, sentences, sourceWords } = await import(`${process.env.ELEMENTS}/manuscript.js`);

const A = { ref: [7, 0], text: "Start with one story. Two minutes is plenty.\n\nWhat comes to mind?" };
const B = { ref: [7, 1], text: "Use that." };
const texts = (manuscript) => manuscript.turns.map((turn) => `${turn.role[0]}:${turn.text}`);

function type(manuscript, text, options = {}) {
  for (const [index] of Array.from(text).entries()) {
    manuscript.type(Array.from(text).slice(0, index + 1).join(""), { now: index, ...options });
  }
}

test("an empty draft is one empty turn of the user", () => {
  const { at, turns } = new Manuscript({}).draft;
  assert.equal(at, 0);
  assert.deepEqual([turns[0].role, turns[0].text, turns[0].from, turns[0].opening], ["user", "", null, false]);
});

test("what the server opened stays as it is", () => {
  const turn = { role: "user", text: "Why?", from: null, opening: true, shown: [], seconds: 4, typed: 0, pasted: 0, taken: 4 };
  const { turns, ...rest } = new Manuscript({ at: 0, turns: [turn] }).draft;
  assert.deepEqual(rest, { at: 0 });
  assert.deepEqual(turns, [{ ...turn, done: false }]);
});

test("a draft goes out as it came in", () => {
  const manuscript = new Manuscript({});
  type(manuscript, "Hello");
  manuscript.done();
  manuscript.shown([A.ref]);
  manuscript.nextSentence(A);
  manuscript.spend(3);
  manuscript.setSystem("Be brief.");
  assert.deepEqual(new Manuscript(JSON.parse(JSON.stringify(manuscript.draft))).draft, manuscript.draft);
});

test("what is damaged is left out", () => {
  const manuscript = new Manuscript({ at: 9, turns: [null, { text: 5 }, { text: "a", role: "x", from: "y", shown: [1], typed: -3, drawn: { z: null } }] });
  assert.equal(manuscript.at, 0);
  assert.deepEqual(texts(manuscript), ["u:a"]);
  for (const damaged of [null, 5, [], { turns: "x" }]) assert.equal(new Manuscript(damaged).turns.length, 1);
});

test("characters are counted as typed or pasted, in code points", () => {
  const manuscript = new Manuscript({});
  manuscript.type("🥖", { now: 0 });
  manuscript.type("🥖 ab", { now: 1 });
  manuscript.type("🥖 ab👩‍🍳", { pasted: true, now: 2 });
  manuscript.type("🥖 a", { now: 3 });
  const { text, typed, pasted } = manuscript.turn;
  assert.deepEqual([text, typed, pasted], ["🥖 a", 4, 3]);
});

test("a replaced character is counted whole", () => {
  assert.deepEqual(difference("a😀b", "a😁b"), { from: 1, was: 3, now: 3 });
  assert.deepEqual(difference("😀", "😀😀"), { from: 2, was: 2, now: 4 });
});

test("a word that is composed counts once", () => {
  const manuscript = new Manuscript({});
  for (const text of ["k", "か", "かn", "かん"]) manuscript.type(text, { composing: true, now: 0 });
  manuscript.type("漢", { now: 0 });
  assert.equal(manuscript.turn.typed, 1);
  manuscript.undo();
  assert.equal(manuscript.turn.text, "");
});

test("taking one ends the turn and opens the other side's", () => {
  const manuscript = new Manuscript({});
  manuscript.take(B);
  assert.deepEqual(texts(manuscript), ["u:Use that.", "a:"]);
  assert.deepEqual([manuscript.turns[0].from, manuscript.turns[0].taken, manuscript.at], [[7, 1], 9, 1]);
});

test("an empty suggestion cannot be taken", () => {
  const manuscript = new Manuscript({});
  assert.equal(manuscript.take({ ref: [1, 0], text: " \n" }), false);
  assert.equal(manuscript.past.length, 0);
});

test("sentence by sentence it is the suggestion again", () => {
  const manuscript = new Manuscript({});
  while (manuscript.nextSentence(A));
  assert.equal(manuscript.turn.text, A.text);
  assert.equal(manuscript.turn.taken, points(A.text));
  assert.equal(manuscript.hasNext(A), false);
});

test("a sentence is put behind what is there", () => {
  const manuscript = new Manuscript({});
  type(manuscript, "Well.");
  manuscript.nextSentence(A);
  assert.equal(manuscript.turn.text, "Well. Start with one story.");
  assert.deepEqual(manuscript.turn.from, [7, 0]);
});

test("it comes from the suggestion with the most characters in it", () => {
  const manuscript = new Manuscript({});
  manuscript.nextSentence(B);
  manuscript.nextSentence(A);
  assert.deepEqual(manuscript.turn.from, [7, 0]);
  assert.equal(manuscript.turn.text, "Use that. Start with one story.");
});

test("of an emptied text nothing is left", () => {
  const manuscript = new Manuscript({ at: 0, turns: [{ role: "user", text: "Why?", opening: true, taken: 4 }] });
  manuscript.edit(A);
  assert.equal(manuscript.turn.opening, false);
  manuscript.type("", { now: 0 });
  assert.equal(manuscript.turn.from, null);
  assert.equal(manuscript.hasNext(A), true);
});

test("an earlier turn is edited in its place", () => {
  const manuscript = new Manuscript({});
  manuscript.take(B);
  type(manuscript, "Yes", { now: 0 });
  manuscript.open(0);
  manuscript.type("Use this.", { now: 0 });
  manuscript.done();
  assert.deepEqual(texts(manuscript), ["u:Use this.", "a:Yes"]);
  assert.equal(manuscript.at, 1);
  assert.deepEqual(manuscript.turns[0].from, [7, 1]);
});

test("an empty turn at the end goes while an earlier one is edited", () => {
  const manuscript = new Manuscript({});
  manuscript.take(B);
  manuscript.open(0);
  assert.deepEqual(texts(manuscript), ["u:Use that."]);
  manuscript.done();
  assert.deepEqual(texts(manuscript), ["u:Use that.", "a:"]);
});

test("an empty turn is not done", () => {
  const manuscript = new Manuscript({});
  assert.equal(manuscript.done(), false);
});

test("deleting leaves the side that was deleted first", () => {
  const manuscript = new Manuscript({});
  manuscript.take(B);
  manuscript.take(A);
  manuscript.deleteFrom(1);
  assert.deepEqual(texts(manuscript), ["u:Use that.", "a:"]);
  manuscript.undo();
  assert.equal(manuscript.turns.length, 3);
  manuscript.deleteLast();
  assert.deepEqual(texts(manuscript), ["u:Use that.", "a:"]);
});

test("sides are switched only where turns may follow in any order", () => {
  const strict = new Manuscript({});
  assert.equal(strict.switchSide(), false);
  const free = new Manuscript({}, { shape: "free" });
  free.switchSide();
  assert.equal(free.turn.role, "assistant");
});

test("undo and redo go over everything", () => {
  const manuscript = new Manuscript({}, { shape: "free" });
  const seen = [];
  const steps = [
    () => type(manuscript, "Hello"),
    () => manuscript.done(),
    () => manuscript.edit(A),
    () => manuscript.switchSide(),
    () => manuscript.setSystem("Be brief."),
    () => manuscript.done(),
    () => manuscript.open(0),
    () => manuscript.deleteFrom(0),
    () => manuscript.become({ at: 0, turns: [{ role: "user", text: "Other" }] }),
  ];
  for (const step of steps) {
    seen.push(manuscript.doc);
    step();
  }
  const last = manuscript.doc;
  for (const doc of [...seen].reverse()) {
    assert.equal(manuscript.undo(), true);
    assert.equal(manuscript.doc, doc);
  }
  assert.equal(manuscript.undo(), false);
  while (manuscript.redo());
  assert.equal(manuscript.doc, last);
});

test("words are undone one by one, a paste by itself", () => {
  const manuscript = new Manuscript({});
  type(manuscript, "Hello there");
  manuscript.type("Hello there, all of you", { pasted: true, now: 20 });
  const back = [];
  while (manuscript.undo()) back.push(manuscript.turn.text);
  assert.deepEqual(back, ["Hello there", "Hello ", ""]);
});

test("a pause ends a burst", () => {
  const manuscript = new Manuscript({});
  manuscript.type("a", { now: 0 });
  manuscript.type("ab", { now: 5000 });
  manuscript.undo();
  assert.equal(manuscript.turn.text, "a");
});

test("the past has an end", () => {
  const manuscript = new Manuscript({}, { shape: "free" });
  for (let index = 0; index < 600; index += 1) manuscript.switchSide();
  let count = 0;
  while (manuscript.undo()) count += 1;
  assert.equal(count, 500);
});

test("time and what was shown are not undone", () => {
  const manuscript = new Manuscript({});
  manuscript.shown([A.ref, B.ref]);
  manuscript.shown([B.ref]);
  manuscript.spend(5);
  manuscript.edit(A);
  manuscript.undo();
  assert.deepEqual([manuscript.draft.turns[0].seconds, manuscript.draft.turns[0].shown], [5, [A.ref, B.ref]]);
});

test("sentences keep every character", () => {
  for (const text of [A.text, "", "  ", "1. First. 2. Second.", "Ask Dr. Who. He knows e.g. this.", "你好。再见。", "See:\n```py\na = 1. \nb = 2.\n```\nDone. Yes."]) {
    assert.equal(sentences(text).join(""), text);
  }
  assert.deepEqual(sentences("Ask Dr. Who. He knows."), ["Ask Dr. Who. ", "He knows."]);
  assert.deepEqual(sentences("- One thing.\n- Another."), ["- One thing.\n", "- Another."]);
  assert.deepEqual(sentences("See:\n```py\na = 1. B.\n```\nDone."), ["See:\n", "```py\na = 1. B.\n```\n", "Done."]);
});

test("how much of a text was changed", () => {
  assert.equal(distance("kitten", "sitting"), 3 / 7);
  assert.equal(distance("", ""), 0);
  assert.equal(distance("a".repeat(5000), "b".repeat(5000)), null);
  const turn = (text, more) => ({ text, from: null, opening: false, ...more });
  assert.equal(sourceWords(turn("Hello")), "your words");
  assert.equal(sourceWords(turn("")), "");
  assert.equal(sourceWords(turn(" Hello ", { from: [1, 0] }), "Hello"), "suggestion");
  assert.equal(sourceWords(turn("Hella", { from: [1, 0] }), "Hello"), "suggestion, 20 % changed");
  assert.equal(sourceWords(turn(`${"x".repeat(999)}y`, { from: [1, 0] }), "x".repeat(1000)), "suggestion, 1 % changed");
  assert.equal(sourceWords(turn("Hello", { opening: true }), "Hello"), "opening");
});
