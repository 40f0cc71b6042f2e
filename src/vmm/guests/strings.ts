/** Collects the strings of a guest program's source and writes them out once, behind its code. */
export class GuestStrings {
  readonly #labels = new Map<string, string>();

  /** The label of a zero-terminated string; equal texts share one. */
  label(text: string): string {
    const known = this.#labels.get(text);
    if (known !== undefined) return known;
    const label = `text_${this.#labels.size}`;
    this.#labels.set(text, label);
    return label;
  }

  /** Assembly source that defines all labels. */
  source(): string {
    return [...this.#labels]
      .map(([text, label]) => `${label}: .asciz ${JSON.stringify(text)}\n`)
      .join('');
  }
}
