/* A piece of writing while it is written: the turns, the one that is open in the box, and where every text came
   from. Without a page: the desk shows it, tests drive it under Node.

   `doc` is { system, turns, at } and never changes in place, so that the snapshots for undo share what is equal.
   What happened and cannot be taken back stands beside it, by the turn's key: the seconds spent on a turn, and the
   suggestions that were shown on it. Characters are counted as Python counts them, in code points. */

const LONGEST_PAST = 500;
const BURST = 1000;

/** Characters as Python counts them. */
export function points(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

const low = (code) => code >= 0xdc00 && code <= 0xdfff;

/** Where two texts differ: { from, was, now } are offsets of the part that was replaced, in UTF-16 units. */
export function difference(before, after) {
  const most = Math.min(before.length, after.length);
  let from = 0;
  while (from < most && before.charCodeAt(from) === after.charCodeAt(from)) from += 1;
  // Never in the middle of a character that has two units.
  if (from && (low(before.charCodeAt(from)) || low(after.charCodeAt(from)))) from -= 1;
  let back = 0;
  while (back < most - from && before.charCodeAt(before.length - 1 - back) === after.charCodeAt(after.length - 1 - back)) back += 1;
  if (back && (low(before.charCodeAt(before.length - back)) || low(after.charCodeAt(after.length - back)))) back -= 1;
  return { from, was: before.length - back, now: after.length - back };
}

const ABBREVIATED = /(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|e\.g|i\.e|cf|No|Fig|approx)\.\s*$/;
const MARK_OF_LIST = /^\s*(?:\d+[.)]|[-*+•]|#{1,6}|[A-Za-z][.)]|>)\s*$/;
const FENCE = /(```[\s\S]*?(?:```[^\n]*\n?|$))/;

/** A text in sentences with the white space behind each; a block of code is one. Joined they are the text again. */
export function sentences(text) {
  const found = [];
  let waits = "";
  for (const [index, part] of text.split(FENCE).entries()) {
    if (!part) continue;
    const pieces = index % 2 ? [part] : [...SEGMENTER.segment(part)].map((one) => one.segment);
    for (const piece of pieces) {
      const whole = waits + piece;
      if (!whole.trim() && found.length) found[found.length - 1] += whole;
      else if (!whole.trim() || (index % 2 === 0 && (MARK_OF_LIST.test(whole) || ABBREVIATED.test(whole)))) {
        waits = whole;
        continue;
      } else found.push(whole);
      waits = "";
    }
  }
  if (waits) found.push(waits);
  return found;
}

const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "sentence" });

/** What stands between a text and the sentence that is put behind it. */
function between(text, gap) {
  if (!text || /\s$/.test(text)) return "";
  if (gap) return gap;
  return /[\u3000-\u9fff\uff00-\uffef]$/.test(text) ? "" : " ";
}

const name = (ref) => ref.join("/");
const other = (role) => (role === "user" ? "assistant" : "user");
const isRef = (ref) => Array.isArray(ref) && ref.length === 2 && ref.every(Number.isInteger);
const whole = (value) => (Number.isInteger(value) && value > 0 ? value : 0);

/** The suggestion with the most characters in the turn; null where none has any. */
function most(drawn) {
  let best = null;
  for (const [ref, { count }] of Object.entries(drawn)) if (!best || count > best.count) best = { ref, count };
  return best ? best.ref.split("/").map(Number) : null;
}

export class Manuscript {
  /** draft: what the server keeps of it; shape: "alternate" or "free". */
  constructor(draft = {}, { shape = "alternate" } = {}) {
    this.shape = shape;
    this.keys = 0;
    this.seconds = new Map();
    this.seen = new Map();
    this.past = [];
    this.future = [];
    this.doc = this.read(draft);
  }

  // --- In and out ------------------------------------------------------------------------------------------------

  /** A document from a draft; what is not as expected is left out. */
  read(draft) {
    const found = Array.isArray(draft?.turns) ? draft.turns.filter((turn) => turn && typeof turn.text === "string") : [];
    const at = Number.isInteger(draft?.at) ? draft.at : found.length - 1;
    const turns = found.map((turn, index) => this.readTurn(turn, index === at));
    if (!turns.length) turns.push(this.empty("user"));
    return {
      system: typeof draft?.system === "string" ? draft.system : null,
      turns,
      at: Math.min(Math.max(at, 0), turns.length - 1),
    };
  }

  readTurn(turn, open) {
    const made = this.empty(turn.role === "assistant" ? "assistant" : "user");
    const from = isRef(turn.from) ? turn.from : null;
    const drawn = {};
    for (const [ref, one] of Object.entries(turn.drawn ?? {})) drawn[ref] = { count: whole(one?.count), upto: whole(one?.upto) };
    if (from && !drawn[name(from)]) drawn[name(from)] = { count: Math.max(1, whole(turn.taken)), upto: Infinity };
    this.seconds.set(made.key, whole(turn.seconds));
    this.seen.set(made.key, (Array.isArray(turn.shown) ? turn.shown : []).filter(isRef));
    return {
      ...made,
      text: turn.text,
      from,
      drawn,
      opening: turn.opening === true,
      done: typeof turn.done === "boolean" ? turn.done : !open,
      typed: whole(turn.typed),
      pasted: whole(turn.pasted),
      taken: whole(turn.taken),
    };
  }

  empty(role) {
    this.keys += 1;
    return { key: this.keys, role, text: "", from: null, drawn: {}, opening: false, done: false, typed: 0, pasted: 0, taken: 0 };
  }

  /** What is kept. */
  get draft() {
    const turns = this.doc.turns.map(({ key, drawn, done, ...turn }) => ({
      ...turn,
      shown: this.seen.get(key) ?? [],
      seconds: this.seconds.get(key) ?? 0,
      done,
      ...(Object.keys(drawn).length ? { drawn: writable(drawn) } : {}),
    }));
    return { ...(this.doc.system === null ? {} : { system: this.doc.system }), at: this.doc.at, turns };
  }

  /** Another draft in the place of this one; undo brings this one back. */
  become(draft) {
    this.change(this.read(draft), "become");
  }

  // --- What is there -----------------------------------------------------------------------------------------------

  get turns() {
    return this.doc.turns;
  }

  get at() {
    return this.doc.at;
  }

  get turn() {
    return this.doc.turns[this.doc.at];
  }

  get atEnd() {
    return this.doc.at === this.doc.turns.length - 1;
  }

  /** What the model would be given before the open turn. */
  get before() {
    return this.doc.turns.slice(0, this.doc.at).filter((turn) => turn.text.trim()).map(({ role, text }) => ({ role, content: text }));
  }

  shownOn(key) {
    return this.seen.get(key) ?? [];
  }

  get switches() {
    return this.shape === "free";
  }

  // --- Past and future ---------------------------------------------------------------------------------------------

  /** A step. Those of one kind that may join, soon after one another, are undone together. */
  change(doc, kind, { now = Date.now(), joins = false } = {}) {
    const last = this.last;
    const joined = joins && this.past.length && last?.kind === kind && last.key === doc.turns[doc.at].key && now - last.time < BURST;
    if (!joined) {
      this.past.push(this.doc);
      if (this.past.length > LONGEST_PAST) this.past.shift();
    }
    this.future = [];
    this.base = null;
    this.last = { kind, key: doc.turns[doc.at].key, time: now };
    this.doc = doc;
    return true;
  }

  undo() {
    return this.travel(this.past, this.future);
  }

  redo() {
    return this.travel(this.future, this.past);
  }

  travel(from, to) {
    if (!from.length) return false;
    to.push(this.doc);
    this.doc = from.pop();
    this.last = null;
    this.base = null;
    return true;
  }

  /** The document with another open turn. */
  withTurn(turn, more = {}) {
    return { ...this.doc, turns: this.doc.turns.with(this.doc.at, turn), ...more };
  }

  // --- Steps -------------------------------------------------------------------------------------------------------

  /** The box holds this text now. While an input method composes, each state of it replaces the one before. */
  type(text, { pasted = false, composing = false, now = Date.now() } = {}) {
    const turn = this.turn;
    text = storable(text);
    if (this.base?.key !== turn.key) this.base = null;
    const before = this.base ?? turn;
    if (text === turn.text) {
      this.base = composing ? before : null;
      return false;
    }
    const { from, was, now: end } = difference(before.text, text);
    const put = text.slice(from, end);
    const next = this.left({ ...before, text, [pasted ? "pasted" : "typed"]: before[pasted ? "pasted" : "typed"] + points(put) });
    // A word is one step, and so is what is deleted in one go.
    const word = put && !/^\s/.test(put) && (from === 0 || /\s/.test(before.text[from - 1]));
    const kind = pasted ? "paste" : put && was === from ? "type" : put ? "replace" : "delete";
    this.change(this.withTurn(next), kind, { now, joins: !pasted && (composing || before !== turn || !(word && kind === "type")) });
    this.base = composing ? before : null;
    return true;
  }

  /** Where nothing is left of a text, nothing is left of where it came from. */
  left(turn) {
    return turn.text.trim() ? turn : { ...turn, from: null, drawn: {}, opening: false };
  }

  /** The suggestion as it is becomes the turn, and the turn is done. */
  take(suggestion) {
    const turn = this.filled(suggestion);
    return turn ? this.change(this.closed(this.withTurn(turn)), "take") : false;
  }

  /** The suggestion into the box, in the place of what is there. */
  edit(suggestion) {
    const turn = this.filled(suggestion);
    return turn ? this.change(this.withTurn(turn), "edit") : false;
  }

  filled({ ref, text }) {
    const put = text.trim();
    if (!put) return null;
    const count = points(put);
    return {
      ...this.turn,
      text: put,
      from: ref,
      drawn: { [name(ref)]: { count, upto: text.length } },
      opening: false,
      taken: this.turn.taken + count,
    };
  }

  /** The first sentence of a suggestion that was not taken yet, behind what is there; false where none is left. */
  nextSentence({ ref, text }) {
    const turn = this.turn;
    const { count = 0, upto = 0 } = turn.drawn[name(ref)] ?? {};
    let start = 0;
    let gap = "";
    for (const sentence of sentences(text)) {
      const end = start + sentence.length;
      if (end > upto && sentence.trim()) {
        const lead = start ? gap : "";
        const put = between(turn.text, upto ? lead : "") + sentence.trim();
        const drawn = { ...turn.drawn, [name(ref)]: { count: count + points(put), upto: end } };
        const next = { ...turn, text: turn.text + put, drawn, from: most(drawn), taken: turn.taken + points(put) };
        return this.change(this.withTurn(next), "sentence");
      }
      gap = sentence.match(/\s*$/)[0];
      start = end;
    }
    return false;
  }

  /** Whether a suggestion has a sentence left for the open turn. */
  hasNext({ ref, text }) {
    return (this.turn.drawn[name(ref)]?.upto ?? 0) < text.trimEnd().length;
  }

  /** Done with the open turn; the next one opens. False where it is empty. */
  done() {
    return this.turn.text.trim() ? this.change(this.closed(this.doc), "done") : false;
  }

  closed(doc) {
    const turns = doc.turns.with(doc.at, { ...doc.turns[doc.at], done: true });
    const last = turns.at(-1);
    if (last.done) turns.push(this.empty(other(last.role)));
    return { ...doc, turns, at: turns.length - 1 };
  }

  /** Write at an earlier or later turn. An empty one at the end goes; it comes back when this one is done. */
  open(index) {
    if (index === this.doc.at || !this.doc.turns[index]) return false;
    const turns = this.withoutEmptyEnd(index);
    return this.change({ ...this.doc, turns, at: index }, "open");
  }

  withoutEmptyEnd(keep) {
    const turns = this.doc.turns;
    return turns.length - 1 > keep && !turns.at(-1).text.trim() ? turns.slice(0, -1) : turns;
  }

  /** The open turn is the other side's. */
  switchSide() {
    if (!this.switches) return false;
    return this.change(this.withTurn({ ...this.turn, role: other(this.turn.role) }), "switch");
  }

  /** Delete a turn and all after it; its side is open, and empty. */
  deleteFrom(index) {
    const turn = this.doc.turns[index];
    if (!turn || (index === this.doc.turns.length - 1 && !turn.text)) return false;
    const turns = [...this.doc.turns.slice(0, index), this.empty(turn.role)];
    return this.change({ ...this.doc, turns, at: index }, "delete turns");
  }

  /** Delete the last turn that has a text. */
  deleteLast() {
    const last = this.doc.turns.length - 1;
    return this.deleteFrom(last && !this.doc.turns[last].text.trim() ? last - 1 : last);
  }

  /** Nothing in the box, also not what the project put there. */
  clear() {
    return this.turn.text ? this.change(this.withTurn(this.left({ ...this.turn, text: "" })), "clear") : false;
  }

  /** Another system message; null is the project's own. */
  setSystem(text, { now = Date.now() } = {}) {
    return text === this.doc.system ? false : this.change({ ...this.doc, system: text }, "system", { now, joins: true });
  }

  // --- What is not undone ------------------------------------------------------------------------------------------

  /** These suggestions were shown on the open turn. */
  shown(refs) {
    const { key } = this.turn;
    const before = this.shownOn(key);
    const fresh = refs.filter((ref) => !before.some((one) => name(one) === name(ref)));
    if (fresh.length) this.seen.set(key, [...before, ...fresh]);
    return fresh.length > 0;
  }

  /** Time was spent on the open turn. */
  spend(seconds) {
    const { key } = this.turn;
    this.seconds.set(key, (this.seconds.get(key) ?? 0) + seconds);
  }
}

/** What no database takes: null characters, and halves of characters. */
const storable = (text) => text.replaceAll("\0", "").replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

/** JSON knows no Infinity. */
function writable(drawn) {
  return Object.fromEntries(
    Object.entries(drawn).map(([ref, { count, upto }]) => [ref, { count, upto: Math.min(upto, Number.MAX_SAFE_INTEGER) }]),
  );
}

/** How far two texts are apart: Levenshtein over the longer length, 0 to 1; null where finding out takes too long. */
export function distance(one, two) {
  const { from, was, now } = difference(one, two);
  const a = Array.from(one.slice(from, was));
  const b = Array.from(two.slice(from, now));
  const longer = Math.max(points(one), points(two));
  if (!longer) return 0;
  if (a.length * b.length > 9e6) return null;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    let diagonal = row[0];
    row[0] = i;
    for (let j = 1; j <= b.length; j += 1) {
      const up = row[j];
      row[j] = Math.min(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] === b[j - 1] ? 0 : 1));
      diagonal = up;
    }
  }
  return row[b.length] / longer;
}

/** Where a turn's text came from, in quiet words; `origin` is the suggestion or the prompt where it is known. */
export function sourceWords(turn, origin) {
  const began = turn.from ? "suggestion" : turn.opening ? "opening" : "";
  if (!began) return turn.text.trim() ? "your words" : "";
  if (origin === undefined) return began;
  if (turn.text.trim() === origin.trim()) return began;
  const apart = distance(turn.text.trim(), origin.trim());
  // A changed text is never said to be unchanged.
  return apart === null ? `${began}, edited` : `${began}, ${Math.max(1, Math.round(apart * 100))} % changed`;
}
