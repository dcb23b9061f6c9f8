/** What stays in the box once `sent` has gone: what was typed behind it meanwhile; all of it where it is another text. */
export function left(text, sent) {
  return text.startsWith(sent) ? text.slice(sent.length).trimStart() : text;
}
