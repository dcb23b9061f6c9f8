/* Many manuscripts in one process: each line on stdin is {"draft", "shape", "steps": [[operation, ...arguments], …]},
   each line on stdout the list of drafts, the first one as it was opened and one after every step. */

import { createInterface } from "node:readline";

const { Manuscript } = await import(`${process.env.ELEMENTS}/manuscript.js`);

for await (const line of createInterface({ input: process.stdin })) {
  const { draft, shape, steps } = JSON.parse(line);
  const manuscript = new Manuscript(draft, { shape });
  const drafts = [manuscript.draft];
  for (const [operation, ...given] of steps) {
    manuscript[operation](...given);
    drafts.push(manuscript.draft);
  }
  console.log(JSON.stringify(drafts));
}
