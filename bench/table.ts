/** How the benchmarks print: lines, and tables in Markdown. */

export const print = (line = ''): void => console.log(line);

/** The first column to the left, figures to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const line = (row: readonly string[]): void => {
    const cells = row.map((cell, i) =>
      i < 1 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!),
    );
    print(`| ${cells.join(' | ')} |`);
  };
  line(head);
  print(`|${widths.map((width, i) => `${'-'.repeat(width + 1)}${i < 1 ? '-' : ':'}`).join('|')}|`);
  for (const row of rows) line(row);
  print();
}
