/* A reply as it comes in pieces. No character is lost or shown twice: every piece says at which
   character it begins, and now and then one holds the whole text, which mends what was missed.
   Positions count characters as Python does, code points, where JavaScript counts UTF-16 units. */

const END = new Set(["done", "failed", "refused", "stopped"]);

export class Reply {
  /** `request` is the job that the page waits for; pieces of older ones are left out. */
  constructor(request) {
    this.request = request;
    this.attempt = 0;
    this.restart();
  }

  restart() {
    this.text = "";
    this.points = 0;
    this.gap = false;
    this.ended = null;
    this.thinking = false;
  }

  /** Take one event. "text": there is more to show; "end": ask the server for the final text;
      "stale": it belongs to another reply than the one waited for; "nothing" otherwise. */
  take(event) {
    if (event.request < this.request || (event.request === this.request && event.attempt < this.attempt)) return "nothing";
    if (event.request > this.request) return "stale";
    if (event.attempt > this.attempt || event.kind === "reset") {
      this.attempt = event.attempt;
      this.restart();
      if (event.kind === "reset") return "text";
    }
    if (END.has(event.kind)) {
      this.ended = event.kind;
      return "end";
    }
    if (event.kind === "thinking") {
      this.thinking = true;
      return "text";
    }
    return event.kind === "text" ? this.add(event) : "nothing";
  }

  add({ offset, text, whole }) {
    const piece = Array.from(text);
    if (whole) {
      this.text = text;
      this.points = piece.length;
      this.gap = false;
      return "text";
    }
    if (offset > this.points) {
      this.gap = true;
      return "nothing";
    }
    const fresh = piece.slice(this.points - offset);
    if (!fresh.length) return "nothing";
    this.text += fresh.join("");
    this.points += fresh.length;
    return "text";
  }
}
