import assert from "node:assert/strict";
import test from "node:test";

const { left } = await import(`${process.env.ELEMENTS}/typed.js`);

test("what was sent leaves the box", () => assert.equal(left("Hello", "Hello"), ""));

test("what was typed behind it stays", () => {
  assert.equal(left("Hello and more", "Hello"), "and more");
  assert.equal(left("Hello\nand more\n", "Hello"), "and more\n");
});

test("another text stays as it is", () => {
  assert.equal(left("Hallo", "Hello"), "Hallo");
  assert.equal(left("Well, Hello", "Hello"), "Well, Hello");
  assert.equal(left("", "Hello"), "");
});
