/* The suggestions of one request, as they come: up to three texts side by side. Without a page; see reply.js for
   how one text is put together from its pieces. */

import { Reply } from "./reply.js";

const FINAL = new Set(["done", "cancelled", "failed", "refused"]);

export class Offers {
  /** `n` texts of a request for this `role` at this `position`, with a `hint`. */
  constructor({ request, n, role, position, hint = "" }) {
    Object.assign(this, { request, n, role, position, hint });
    this.replies = Array.from({ length: n }, () => new Reply(request));
    this.finish = Array(n).fill("");
    this.state = "waiting";
    this.reason = "";
  }

  /** What the server says of a request, for a page that has just been loaded. */
  static from(answer) {
    const n = Math.max(answer.n ?? 0, ...answer.texts.map((one) => one.index + 1), 1);
    const offers = new Offers({ ...answer, n });
    offers.adopt(answer);
    return offers;
  }

  get pending() {
    return !FINAL.has(this.state);
  }

  /** The texts as they are shown: ref, text so far, and whether it can be taken. */
  get all() {
    return this.replies.map((reply, index) => ({
      ref: [this.request, index],
      text: reply.text,
      finish: this.finish[index],
      begun: reply.points > 0,
      thinking: reply.thinking,
      ready: Boolean(this.finish[index]) && Boolean(reply.text.trim()),
    }));
  }

  /** Take one event. "text": there is more to show; "finished": one can be taken; "end": ask the server for the
      final state; "nothing" otherwise. */
  take(event) {
    if (event.request !== this.request || !this.pending) return "nothing";
    const reply = this.replies[event.index ?? 0];
    if (!reply) return "nothing";
    if (event.kind === "finished") return this.finished(event, reply);
    const news = reply.take(event);
    if (event.kind === "reset") this.finish[event.index ?? 0] = "";
    return news;
  }

  finished(event, reply) {
    // With a gap in it the text is not whole: the server has it.
    if (event.attempt !== reply.attempt || reply.gap) return "nothing";
    this.finish[event.index] = event.finish ?? "stop";
    return "finished";
  }

  /** What the server says: where it has a text, that is the text. */
  adopt({ state, reason = "", texts }) {
    this.state = state;
    this.reason = reason;
    for (const { index, text, finish } of texts) {
      const reply = this.replies[index];
      if (!reply) continue;
      reply.add({ text, whole: true });
      this.finish[index] = finish || "stop";
    }
  }
}
