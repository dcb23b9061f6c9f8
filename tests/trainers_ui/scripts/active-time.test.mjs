import assert from "node:assert/strict";
import test from "node:test";

const signs = new Map();
globalThis.addEventListener = (name, act) => signs.set(name, act);
globalThis.removeEventListener = (name) => signs.delete(name);
globalThis.document = { hidden: false };
const { ActiveTime } = await import(`${process.env.ELEMENTS}/active-time.js`);

const MINUTE = 60_000;

/** Ticks once a second for so long, beginning at a moment. */
const pass = (time, from, ms) => {
  for (let now = from; now < from + ms; now += 1000) time.tick(now);
};

test("time counts until a minute after the last sign of somebody", (t) => {
  t.mock.timers.enable({ apis: ["Date", "setInterval"], now: 1_000_000 });
  const time = new ActiveTime(10);
  pass(time, 1_000_000, 10 * MINUTE);
  assert.equal(time.seconds, 70);
  assert.equal(time.working, true);

  t.mock.timers.setTime(1_000_000 + 10 * MINUTE);
  assert.equal(time.working, false);
  signs.get("keydown")();
  assert.equal(time.working, true);
  pass(time, 1_000_000 + 10 * MINUTE, MINUTE);
  assert.equal(time.seconds, 130);
  time.stop();
});

test("nothing counts while another tab is looked at", (t) => {
  t.mock.timers.enable({ apis: ["Date", "setInterval"], now: 5_000_000 });
  const time = new ActiveTime();
  document.hidden = true;
  pass(time, 5_000_000, MINUTE);
  assert.equal(time.seconds, 0);
  assert.equal(time.working, false);
  document.hidden = false;
  time.stop();
  assert.equal(signs.size, 0);
});
