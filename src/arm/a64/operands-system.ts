/**
 * Operand kinds of system instructions: register and PSTATE names, barriers, prefetch operations,
 * hints, and the names of the SYS operations (DC, IC, AT, TLBI).
 *
 *   <sysreg:k>         op0:op1:CRn:CRm:op2, 16 bits, or 15 with op0's upper bit left out
 *   <C:n>              CRn or CRm as `c7`
 *   <pstate:o,p>       PSTATE field by op1 and op2
 *   <barrier:m> <isb:m> <prfop:t>
 *   <dc:o,m,p,t>       operation by op1, CRm and op2 with its register: `civac, x0`; likewise ic,
 *                      at, tlbi; the register is not written where there is none
 */
import { findSystemRegisterByName, keyOfGenericName, systemRegisterName } from '../sysreg/index.ts';
import { choice, joinValues, type OperandKind, splitValue } from './operands.ts';
import { formatRegister, readRegister } from './operands-basic.ts';

const systemRegister: OperandKind = {
  print: (values, args) => systemRegisterName(0x8000 | joinValues(values, args)).toLowerCase(),
  parse(text, form) {
    const start = text.at;
    const name = text.match(/\w+/y)?.[0] ?? '';
    const key = findSystemRegisterByName(name)?.key ?? keyOfGenericName(name);
    return (key & 0x8000) === 0 || key < 0
      ? text.denyValue(`no system register '${name}'`, start)
      : splitValue(key, form.args);
  },
};

/** Names with gaps, or a plain `#n` for values without one. */
function namesOrNumber(names: readonly (string | undefined)[]): OperandKind {
  const named = choice(names);
  return {
    print: (values, args, pc) => named.print(values, args, pc) ?? `#${joinValues(values, args)}`,
    parse(text, form) {
      if (text.match(/#|(?=\d)/y) === undefined) return named.parse(text, form);
      const start = text.at;
      const value = text.expression();
      if (value === undefined) return undefined;
      const limit = 2 ** form.args.reduce((sum, arg) => sum + arg.width, 0);
      if (value >= 0n && value < limit) return splitValue(Number(value), form.args);
      return text.denyValue(`${value} is outside 0..${limit - 1}`, start);
    },
  };
}

/** `1:oshld 2:oshst` as an array with gaps. */
function sparse(text: string): (string | undefined)[] {
  const names: (string | undefined)[] = [];
  for (const entry of text.split(' ')) {
    const [index, name] = entry.split(':');
    names[Number(index)] = name;
  }
  return Array.from(names);
}

const BARRIERS = sparse(
  '1:oshld 2:oshst 3:osh 5:nshld 6:nshst 7:nsh 9:ishld 10:ishst 11:ish 13:ld 14:st 15:sy',
);

/** Type (2 bits), target cache level (2 bits), policy (1 bit). */
const PREFETCHES = Array.from({ length: 24 }, (_, value) => {
  const type = ['pld', 'pli', 'pst'][value >> 3];
  const level = ['l1', 'l2', 'l3', undefined][(value >> 1) & 3];
  return level && `${type}${level}${value & 1 ? 'strm' : 'keep'}`;
});

/** Indexed by op1:op2. */
const PSTATES = sparse('3:uao 4:pan 5:spsel 8:allint 25:ssbs 26:dit 28:tco 30:daifset 31:daifclr');

// ---- SYS operations -----------------------------------------------------------------------------

/** An operation of SYS: its key op1:CRm:op2 and whether it takes a register. */
interface SysOperation {
  readonly name: string;
  readonly key: number;
  readonly register: boolean;
}

/** `op1 CRm: op2=name …`, a name that ends in `!` takes no register. */
function sysOperations(lines: string): SysOperation[] {
  return lines
    .trim()
    .split('\n')
    .flatMap((line) => {
      const [where, names] = line.split(':');
      const [op1, crm] = where!.trim().split(' ').map(Number);
      return names!
        .trim()
        .split(' ')
        .map((entry) => {
          const [op2, name] = entry.split('=');
          return {
            name: name!.replace('!', ''),
            key: (op1! << 7) | (crm! << 3) | Number(op2),
            register: !name!.endsWith('!'),
          };
        });
    });
}

const DATA_CACHE = sysOperations(`
  0 6: 1=ivac 2=isw 3=igvac 4=igsw 5=igdvac 6=igdsw
  0 10: 2=csw 4=cgsw 6=cgdsw
  0 14: 2=cisw 4=cigsw 6=cigdsw
  3 4: 1=zva 3=gva 4=gzva
  3 10: 1=cvac 3=cgvac 5=cgdvac
  3 11: 1=cvau
  3 12: 1=cvap 3=cgvap 5=cgdvap
  3 13: 1=cvadp 3=cgvadp 5=cgdvadp
  3 14: 1=civac 3=cigvac 5=cigdvac`);

const INSTRUCTION_CACHE = sysOperations(`
  0 1: 0=ialluis!
  0 5: 0=iallu!
  3 5: 1=ivau`);

const ADDRESS_TRANSLATION = sysOperations(`
  0 8: 0=s1e1r 1=s1e1w 2=s1e0r 3=s1e0w
  0 9: 0=s1e1rp 1=s1e1wp
  4 8: 0=s1e2r 1=s1e2w 4=s12e1r 5=s12e1w 6=s12e0r 7=s12e0w
  6 8: 0=s1e3r 1=s1e3w`);

/** Each shareability of TLBI has its CRm; range operations have theirs. */
function tlbOperations(): SysOperation[] {
  const plain = { os: 1, is: 3, '': 7 };
  const range = { is: 2, os: 5, '': 6 };
  const rows = (['os', 'is', ''] as const).flatMap((s) => {
    const crm = plain[s];
    const r = range[s];
    return [
      `0 ${crm}: 0=vmalle1${s}! 1=vae1${s} 2=aside1${s} 3=vaae1${s} 5=vale1${s} 7=vaale1${s}`,
      `0 ${r}: 1=rvae1${s} 3=rvaae1${s} 5=rvale1${s} 7=rvaale1${s}`,
      `4 ${crm}: 0=alle2${s}! 1=vae2${s} 4=alle1${s}! 5=vale2${s} 6=vmalls12e1${s}!`,
      `4 ${r}: 1=rvae2${s} 5=rvale2${s}`,
      `6 ${crm}: 0=alle3${s}! 1=vae3${s} 5=vale3${s}`,
      `6 ${r}: 1=rvae3${s} 5=rvale3${s}`,
    ];
  });
  rows.push(
    '4 0: 1=ipas2e1is 2=ripas2e1is 5=ipas2le1is 6=ripas2le1is',
    '4 4: 0=ipas2e1os 1=ipas2e1 2=ripas2e1 3=ripas2e1os',
    '4 4: 4=ipas2le1os 5=ipas2le1 6=ripas2le1 7=ripas2le1os',
  );
  return sysOperations(rows.join('\n'));
}

const ZERO_REGISTER = 31;

function sysOperation(operations: readonly SysOperation[]): OperandKind {
  const byKey = new Map(operations.map((operation) => [operation.key, operation]));
  const byName = new Map(operations.map((operation) => [operation.name, operation]));
  return {
    print(values, args) {
      const operation = byKey.get(joinValues(values.slice(0, -1), args));
      const register = values.at(-1)!;
      if (operation === undefined) return undefined;
      if (operation.register) return `${operation.name}, ${formatRegister(register, true, false)}`;
      return register === ZERO_REGISTER ? operation.name : undefined;
    },
    parse(text, form) {
      const start = text.at;
      const name = text.match(/\w+/y)?.[0].toLowerCase() ?? '';
      const operation = byName.get(name);
      if (operation === undefined) return text.deny(`no operation '${name}'`, start);
      const fields = splitValue(operation.key, form.args.slice(0, -1));
      if (!operation.register) return [...fields, ZERO_REGISTER];
      if (!text.token(',')) return undefined;
      const register = readRegister(text, false);
      return register?.is64 ? [...fields, register.number] : undefined;
    },
  };
}

export const systemOperands: Readonly<Record<string, OperandKind>> = {
  C: choice(Array.from({ length: 16 }, (_, value) => `c${value}`)),
  sysreg: systemRegister,
  pstate: choice(PSTATES),
  barrier: namesOrNumber(BARRIERS),
  isb: namesOrNumber(sparse('15:sy')),
  prfop: namesOrNumber(PREFETCHES),
  dc: sysOperation(DATA_CACHE),
  ic: sysOperation(INSTRUCTION_CACHE),
  at: sysOperation(ADDRESS_TRANSLATION),
  tlbi: sysOperation(tlbOperations()),
};
