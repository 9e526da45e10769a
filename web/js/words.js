// What this pack says, in the language of the page.

/** An English text of this pack in the page's language, or as it is where that has none for it. */
export function t(english) {
  return english
}
