/**
 * The embedded guest from the command line to power-off: every line it writes, exit status and
 * summary, with and without MTE.
 */
import { describe, expect, it } from 'vitest';
import { granule, statistic } from '../support/granule-cli.ts';

const start = [
  'embedded: a bare-metal guest at EL1',
  'embedded: CurrentEL: ok',
  'embedded: stage 1 is on: ok',
  'embedded: two mappings of one page: ok',
  'embedded: AT S1E1R finds the page: ok',
];

const withMte = [
  'embedded: irg: the same seed, the same tags: ok',
  'embedded: irg: 256 tags, never the excluded 0: ok',
  'embedded: irg: one tag is left by the mask: ok',
  'embedded: addg: from tag 15 over the excluded 0 to 1: ok',
  'embedded: subg: back, same tag: ok',
  'embedded: gmi: adds the tag to the mask: ok',
  'embedded: subp: without the tags: ok',
  'embedded: subps: sets N: ok',
  'embedded: stg, ldg: ok',
  'embedded: st2g: two tag granules: ok',
  'embedded: stzg: zeroes: ok',
  'embedded: stzg: and no more than 16 bytes: ok',
  'embedded: stzg: sets the tag: ok',
  'embedded: stgp: stores a pair and its tag: ok',
  'embedded: dc gva: the last tag granule of the block: ok',
  'embedded: not Tagged: stg is ignored, ldg gives 0: ok',
  'embedded: synchronous: right tag, stored and loaded: ok',
  'embedded: synchronous: right tag, no exception: ok',
  'embedded: synchronous: wrong tag, the load does not complete: ok',
  'embedded: synchronous: ESR_EL1 says tag check fault, read: ok',
  'embedded: synchronous: FAR_EL1 is the address with its tag: ok',
  'embedded: synchronous: ESR_EL1 says tag check fault, write: ok',
  'embedded: synchronous: wrong tag, the store does not happen: ok',
  'embedded: synchronous: an access over two tag granules: ok',
  'embedded: not checked: TCO, base SP, memory that is not Tagged: ok',
  'embedded: asynchronous: TFSR_EL1.TF0: ok',
  'embedded: asynchronous: no exception: ok',
  'embedded: asynchronous: the store completed: ok',
  'embedded: asymmetric: a read faults: ok',
  'embedded: asymmetric: a write sets TFSR_EL1: ok',
  'embedded: asymmetric: and takes no exception: ok',
];

const withoutMte = [
  'embedded: MTE is hidden (ID_AA64PFR1_EL1.MTE)',
  'embedded: ldg gives 0 after stg: ok',
  'embedded: no tag is checked: ok',
  'embedded: GCR_EL1 is UNDEFINED: ok',
];

const end = ['granule: guest reports success', ''];

describe('granule demo --embedded', () => {
  it.each([
    { mte: 'on', middle: withMte },
    { mte: 'off', middle: withoutMte },
  ])('--mte $mte: all checks pass, power-off, status 0', async ({ mte, middle }) => {
    const args = ['demo', '--embedded', '-m', '32M', '--mte', mte];
    const { status, output, messages } = await granule(args);
    expect(output.split('\n')).toEqual([...start, ...middle, ...end]);
    expect(status).toBe(0);
    expect(messages).toMatch(/^granule: the guest powered off\n/);
    expect(statistic(messages, 'guest instructions')).toBeGreaterThan(10_000);
    // One MMIO exit a character, and one for each look at the flag register before it.
    expect(messages).toMatch(/mmio [\d,]+, hvc 1,/);
    expect(statistic(messages, 'pages tagged') > 0).toBe(mte === 'on');
  });

  it('--trace exits,stage2: a line each on stderr, the guest’s output as before', async () => {
    const args = ['demo', '--embedded', '-m', '32M', '--mte', 'off', '--trace', 'exits,stage2'];
    const { status, output, messages } = await granule(args);
    expect(status).toBe(0);
    expect(output.split('\n')).toEqual([...start, ...withoutMte, ...end]);
    // 'e', the first character, goes to the PL011's data register.
    expect(messages).toMatch(/^exits: vcpu0 mmio write 0x9000000 size=4 data=0x65$/m);
    expect(messages).toMatch(/^stage2: vcpu0 ipa=0x40\w+ .* resume$/m);
    expect(messages).toMatch(/^exits: vcpu0 hvc system-event$/m);
  });
});
