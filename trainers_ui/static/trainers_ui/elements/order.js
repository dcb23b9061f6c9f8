/* The order as it is typed, best first: letters, and between each two a sign, ">" or "=".
   Pure functions over { letters, signs, tie }: `tie` says that a typed "=" waits for its letter.
   Every change gives a new order. Read `text` and `parse` for what the server understands. */

export const EMPTY = Object.freeze({ letters: [], signs: [], tie: false });

const has = (order, letter) => order.letters.includes(letter);

/** Put a letter at the end, tied with the last one after a "=". One that stands already stays. */
export function place(order, letter) {
  if (has(order, letter)) return order;
  const signs = order.letters.length ? [...order.signs, order.tie ? "=" : ">"] : [];
  return { letters: [...order.letters, letter], signs, tie: false };
}

/** Take a letter out. Its neighbours stay tied only where all three were. */
export function takeOut(order, letter) {
  const at = order.letters.indexOf(letter);
  if (at < 0) return order;
  const letters = order.letters.filter((_, index) => index !== at);
  const before = order.signs.slice(0, Math.max(0, at - 1));
  const after = order.signs.slice(at + 1);
  const joined = at > 0 && at < order.signs.length ? [order.signs[at - 1] === "=" && order.signs[at] === "=" ? "=" : ">"] : [];
  return { letters, signs: [...before, ...joined, ...after], tie: order.tie && letters.length > 0 };
}

/** A click or a letter key: in where it is out, out where it is in. */
export const toggle = (order, letter) => (has(order, letter) ? takeOut(order, letter) : place(order, letter));

/** The next letter will be equal to the last one. */
export const tie = (order) => (order.letters.length ? { ...order, tie: true } : order);

/** The next letter will come after the last one. */
export const part = (order) => (order.tie ? { ...order, tie: false } : order);

/** Take back what was typed last: a waiting "=", else the last letter. */
export function back(order) {
  if (order.tie) return part(order);
  return order.letters.length ? takeOut(order, order.letters.at(-1)) : order;
}

/** Switch the sign after the letter at `index` between › and =. */
export function flip(order, index) {
  const signs = order.signs.map((sign, at) => (at === index ? (sign === "=" ? ">" : "=") : sign));
  return { ...order, signs };
}

/** Move a letter to another position: into a tie where it lands between two that are equal, else by itself. */
export function move(order, letter, to) {
  const at = order.letters.indexOf(letter);
  const target = Math.max(0, Math.min(order.letters.length - 1, to));
  if (at < 0 || at === target) return order;
  const { letters, signs, tie } = takeOut(order, letter);
  const between = target > 0 && target < letters.length ? signs[target - 1] : ">";
  return {
    letters: letters.toSpliced(target, 0, letter),
    signs: target > 0 && target < letters.length ? signs.toSpliced(target - 1, 1, between, between) : signs.toSpliced(target, 0, ">"),
    tie,
  };
}

/** The letters in groups of equals, best first. */
export function tiers(order) {
  const groups = [];
  order.letters.forEach((letter, index) => {
    if (index && order.signs[index - 1] === "=") groups.at(-1).push(letter);
    else groups.push([letter]);
  });
  return groups;
}

/** What is sent and kept: "B A = D C". */
export const text = (order) => tiers(order).map((group) => group.join(" = ")).join(" ");

/** An order from such a text. Letters that are not among `allowed` are left out. */
export function parse(written, allowed) {
  let order = EMPTY;
  for (const sign of (written || "").toUpperCase().replace(/[\s>›,]+/g, "")) {
    if (sign === "=") order = tie(order);
    else if (allowed.includes(sign)) order = place(order, sign);
  }
  return part(order);
}

/** The place of a letter, 1 is best, and whether others share it; null where it has none. */
export function placeOf(order, letter) {
  const groups = tiers(order);
  const rank = groups.findIndex((group) => group.includes(letter));
  return rank < 0 ? null : { rank: rank + 1, tied: groups[rank].length > 1 };
}

const ENDINGS = { 1: "st", 2: "nd", 3: "rd" };

/** "2nd, tied", or a dash. */
export const word = (found) => (found ? `${found.rank}${ENDINGS[found.rank] ?? "th"}${found.tied ? ", tied" : ""}` : "–");

const list = (letters) => (letters.length < 2 ? letters.join("") : `${letters.slice(0, -1).join(", ")} and ${letters.at(-1)}`);

/** The order as a sentence: "B first, then A and D tied." Empty where nothing has a place. */
export function say(order) {
  const groups = tiers(order).map((group) => [...group].sort());
  const words = groups.map((group) => `${list(group)}${group.length > 1 ? " tied" : ""}`);
  if (!words.length) return "";
  const alone = groups[0].length === 1;
  if (words.length === 1) return `${words[0]}${alone ? " first" : ""}.`;
  return `${words[0]}${alone ? " first" : " for first"}, then ${words.slice(1).join(", then ")}.`;
}

/** "C has no place yet." Empty where all have one. */
export const sayMissing = (letters) =>
  letters.length ? `${list(letters)} ${letters.length > 1 ? "have" : "has"} no place yet.` : "";

/** What is still missing before it can be sent, as the letters; all bad needs no order at all. */
export const missing = (order, all, allBad) =>
  allBad && !order.letters.length ? [] : all.filter((letter) => !has(order, letter));
