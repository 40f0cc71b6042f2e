/**
 * Puts a WebAssembly module together from functions whose code is already encoded. Knows the binary
 * format's sections, nothing of what the functions do.
 */
import { Code, ValueType } from './code.ts';

export interface FunctionType {
  readonly parameters: readonly ValueType[];
  readonly results: readonly ValueType[];
}

export interface FunctionBody {
  readonly type: FunctionType;
  /** Types of the locals behind the parameters, in order. */
  readonly locals: readonly ValueType[];
  readonly code: Code;
}

export interface ModulePlan {
  /** Imported from module "e": a memory named "memory", and these functions. */
  readonly imports: readonly { readonly name: string; readonly type: FunctionType }[];
  readonly memoryPagesMin: number;
  readonly functions: readonly FunctionBody[];
  readonly exports: readonly { readonly name: string; readonly function: number }[];
  /** Function indices (imports first) of table 0. */
  readonly table: readonly number[];
}

function section(out: Code, id: number, body: Code): void {
  out.op(id).u32(body.length).append(body);
}

function name(out: Code, text: string): void {
  out.u32(text.length);
  for (let i = 0; i < text.length; i++) out.op(text.charCodeAt(i));
}

const key = (type: FunctionType): string => `${type.parameters.join()}>${type.results.join()}`;

/** Distinct function types in order of first use; a call_indirect names its type by this index. */
export function typeIndices(plan: Pick<ModulePlan, 'imports' | 'functions'>): Map<string, number> {
  const indices = new Map<string, number>();
  for (const { type } of [...plan.imports, ...plan.functions]) {
    if (!indices.has(key(type))) indices.set(key(type), indices.size);
  }
  return indices;
}

function localRuns(locals: readonly ValueType[]): { type: ValueType; count: number }[] {
  const runs: { type: ValueType; count: number }[] = [];
  for (const type of locals) {
    const last = runs.at(-1);
    if (last?.type === type) last.count++;
    else runs.push({ type, count: 1 });
  }
  return runs;
}

/** Encodes the module. */
export function encodeModule(plan: ModulePlan): Uint8Array<ArrayBuffer> {
  const types = typeIndices(plan);
  const out = new Code();
  for (const byte of [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]) out.op(byte);

  const typeSection = new Code().u32(types.size);
  for (const text of types.keys()) {
    const [parameters = '', results = ''] = text.split('>');
    typeSection.op(0x60);
    for (const list of [parameters, results]) {
      const items = list === '' ? [] : (list.split(',') as ValueType[]);
      typeSection.u32(items.length);
      for (const item of items) typeSection.op(ValueType[item]);
    }
  }
  section(out, 1, typeSection);

  const importSection = new Code().u32(plan.imports.length + 1);
  name(importSection, 'e');
  name(importSection, 'memory');
  importSection.op(2).op(0).u32(plan.memoryPagesMin);
  for (const item of plan.imports) {
    name(importSection, 'e');
    name(importSection, item.name);
    importSection.op(0).u32(types.get(key(item.type))!);
  }
  section(out, 2, importSection);

  const functionSection = new Code().u32(plan.functions.length);
  for (const { type } of plan.functions) functionSection.u32(types.get(key(type))!);
  section(out, 3, functionSection);

  section(out, 4, new Code().u32(1).op(0x70).op(1).u32(plan.table.length).u32(plan.table.length));

  const exportSection = new Code().u32(plan.exports.length);
  for (const item of plan.exports) {
    name(exportSection, item.name);
    exportSection.op(0).u32(item.function);
  }
  section(out, 7, exportSection);

  const elements = new Code().u32(1).op(0).i32(0).op(0x0b).u32(plan.table.length);
  for (const index of plan.table) elements.u32(index);
  section(out, 9, elements);

  const codeSection = new Code().u32(plan.functions.length);
  for (const { locals, code } of plan.functions) {
    const body = new Code();
    const runs = localRuns(locals);
    body.u32(runs.length);
    for (const run of runs) body.u32(run.count).op(ValueType[run.type]);
    body.append(code).op(0x0b);
    codeSection.u32(body.length).append(body);
  }
  section(out, 10, codeSection);
  return out.bytes.slice();
}
