import assert from "node:assert/strict";
import test from "node:test";

const order = await import(`${process.env.ELEMENTS}/order.js`);
const ALL = ["A", "B", "C", "D"];

/** An order after these keys. */
const typed = (keys, from = order.EMPTY) =>
  [...keys].reduce((now, key) => {
    if (key === "=") return order.tie(now);
    if (key === ">") return order.part(now);
    if (key === "<") return order.back(now);
    return order.toggle(now, key);
  }, from);

const reads = (keys) => order.text(typed(keys));

test("typing", () => {
  assert.equal(reads("BA=DC"), "B A = D C");
  assert.equal(reads("B>A=D>C"), "B A = D C");
  assert.equal(reads("A=B=C=D"), "A = B = C = D");
  assert.equal(reads("A=>B"), "A B");
});

test("a tie needs something to tie with", () => {
  assert.equal(reads("=AB"), "A B");
  assert.equal(reads("A==B"), "A = B");
});

test("backspace takes the last back, a waiting = first", () => {
  assert.equal(reads("BA=<D"), "B A D");
  assert.equal(reads("BA=D<"), "B A");
  assert.equal(reads("BA=D<<<<<"), "");
});

test("the same letter again takes it out", () => {
  assert.equal(reads("BAB"), "A");
  assert.equal(reads("BA=DA"), "B D");
  assert.equal(reads("A=B=CB"), "A = C");
  assert.equal(reads("AB=CA"), "B = C");
});

test("a sign switches", () => {
  assert.equal(order.text(order.flip(typed("BADC"), 1)), "B A = D C");
  assert.equal(order.text(order.flip(typed("BA=DC"), 1)), "B A D C");
});

test("moving goes through ties and keeps those of others", () => {
  const from = typed("BA=DC");
  assert.equal(order.text(order.move(from, "C", 2)), "B A = C = D");
  assert.equal(order.text(order.move(from, "C", 1)), "B C A = D");
  assert.equal(order.text(order.move(from, "D", 3)), "B A C D");
  assert.equal(order.text(order.move(from, "B", 99)), "A = D C B");
  assert.equal(order.move(from, "B", -1), from);
  assert.equal(order.move(from, "X", 0), from);
});

test("nothing is changed in place", () => {
  const from = typed("BA=D");
  const before = JSON.stringify(from);
  order.toggle(from, "A");
  order.move(from, "D", 0);
  order.flip(from, 0);
  order.back(from);
  assert.equal(JSON.stringify(from), before);
});

test("there is one sign fewer than letters, whatever is done", () => {
  const keys = "ABCD=><ABCDmf";
  let seed = 7;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  let now = order.EMPTY;
  for (let step = 0; step < 5000; step += 1) {
    const key = keys[random(keys.length)];
    if (key === "m") now = order.move(now, ALL[random(4)], random(4));
    else if (key === "f") now = order.flip(now, random(3));
    else now = typed(key, now);
    assert.equal(now.signs.length, Math.max(0, now.letters.length - 1));
    assert.equal(new Set(now.letters).size, now.letters.length);
    assert.equal(order.text(order.parse(order.text(now), ALL)), order.text(now));
  }
});

test("reading what was kept", () => {
  assert.equal(order.text(order.parse("b > a=d, c", ALL)), "B A = D C");
  assert.equal(order.text(order.parse("A X B =", ALL)), "A B");
  assert.equal(order.text(order.parse(undefined, ALL)), "");
});

test("places", () => {
  const now = typed("BA=DC");
  assert.deepEqual(ALL.map((letter) => order.word(order.placeOf(now, letter))), ["2nd, tied", "1st", "3rd", "2nd, tied"]);
  assert.equal(order.word(order.placeOf(typed("B"), "A")), "–");
});

test("sentences", () => {
  const said = Object.fromEntries(["BA=DC", "BD=AC", "A=BC", "A=B=C", "A", ""].map((keys) => [keys, order.say(typed(keys))]));
  assert.deepEqual(said, {
    "BA=DC": "B first, then A and D tied, then C.",
    "BD=AC": "B first, then A and D tied, then C.",
    "A=BC": "A and B tied for first, then C.",
    "A=B=C": "A, B and C tied.",
    A: "A first.",
    "": "",
  });
  assert.equal(order.sayMissing(["C"]), "C has no place yet.");
  assert.equal(order.sayMissing([]), "");
});

test("what is missing", () => {
  assert.deepEqual(order.missing(typed("BA"), ALL, false), ["C", "D"]);
  assert.deepEqual(order.missing(typed(""), ALL, true), []);
  assert.deepEqual(order.missing(typed("BA"), ALL, true), ["C", "D"]);
});
