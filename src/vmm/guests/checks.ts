/**
 * What the guest programs share: a line of output for every check, strings, numbers in hexadecimal.
 * Used while a program's source is composed; each check compares x0 with x1.
 *
 * The program provides two labels: `put`, which writes x2 bytes at x1 and may change x0 to x8, and
 * `failed`, where it goes on after a check that does not hold, with the number of the check in x0.
 */
export class GuestChecks {
  readonly #prefix: string;
  readonly #labels = new Map<string, string>();
  #count = 0;

  /** Each line of output begins with `prefix`. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Source that prints `text`; changes x0 to x8 and x30. */
  print(text: string): string {
    return `
  adr x0, ${this.#label(text)}
  bl print`;
  }

  /** Source that compares x0 with x1 and prints how that went; changes x0 to x8 and x30. */
  expectEqual(line: string): string {
    this.#count++;
    return `
  adr x2, ${this.#label(line)}
  mov x3, #${this.#count}
  bl expect_equal`;
  }

  /** The routines and all strings; comes last in a program. */
  source(): string {
    const routines = this.#routines();
    const strings = [...this.#labels].map(
      ([text, label]) => `${label}: .asciz ${JSON.stringify(text)}\n`,
    );
    return `${routines}\n.ltorg\n${strings.join('')}`;
  }

  #label(text: string): string {
    const label = this.#labels.get(text) ?? `text_${this.#labels.size}`;
    this.#labels.set(text, label);
    return label;
  }

  #routines(): string {
    return `
// x0: found, x1: expected, x2: the check's line, x3: its number
expect_equal:
  stp x29, x30, [sp, #-48]!
  stp x0, x1, [sp, #16]
  stp x2, x3, [sp, #32]
  ${this.print(this.#prefix)}
  ldr x0, [sp, #32]
  bl print
  ldp x0, x1, [sp, #16]
  cmp x0, x1
  b.ne 1f
  ${this.print(': ok\n')}
  ldp x29, x30, [sp], #48
  ret
1:
  ${this.print(': FAILED, ')}
  ldr x0, [sp, #16]
  bl print_hex
  ${this.print(' instead of ')}
  ldr x0, [sp, #24]
  bl print_hex
  ${this.print('\n')}
  ldr x0, [sp, #40]
  ldp x29, x30, [sp], #48
  b failed

// x0: zero-terminated text
print:
  mov x1, x0
  mov x2, #0
1: ldrb w3, [x1, x2]
  cbz w3, put
  add x2, x2, #1
  b 1b

// x0: number, written as 16 hexadecimal digits
print_hex:
  stp x29, x30, [sp, #-32]!
  add x1, sp, #16
  mov x2, #16
1: ror x0, x0, #60
  and x3, x0, #15
  add x4, x3, #'0'
  add x5, x3, #'a' - 10
  cmp x3, #10
  csel x4, x4, x5, lo
  strb w4, [x1], #1
  subs x2, x2, #1
  b.ne 1b
  add x1, sp, #16
  mov x2, #16
  bl put
  ldp x29, x30, [sp], #32
  ret
`;
  }
}

/** Source that makes x0 the allocation tag at the address in `register`, as a number. */
export const allocationTag = (register: string): string => `
  mov x0, #0
  ldg x0, [${register}]
  ubfx x0, x0, #56, #4`;
