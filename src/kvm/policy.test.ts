/** Policies as people write them: what they choose, and what cannot be understood. */
import { describe, expect, it } from 'vitest';
import { KvmPolicyError, kvmPolicy, linux61, linux612, parseKvmPolicy } from './policy.ts';

describe('parseKvmPolicy', () => {
  it.each([
    ['', 'linux-6.12'],
    [' ', 'linux-6.12'],
    ['linux=6.1', 'linux-6.1'],
    ['tagging=transparent,untaggable=reject', 'linux-6.12'],
    ['tagging=require-prot-mte', 'linux-6.12,tagging=require-prot-mte'],
    [
      'untaggable=device, tagging=require-prot-mte',
      'linux-6.12,tagging=require-prot-mte,untaggable=device',
    ],
    ['untaggable=no-tag-access', 'linux-6.12,untaggable=no-tag-access'],
    ['linux=6.1,untaggable=unchecked', 'linux-6.1,untaggable=unchecked'],
  ])("'%s': %s", (text, name) => {
    expect(parseKvmPolicy(text).name).toBe(name);
  });

  it.each([
    ['tagging', "policy 'tagging' is not of the form KEY=VALUE (keys: linux, tagging, untaggable)"],
    ['tagging=a=b', "policy 'tagging=a=b' is not of the form KEY=VALUE"],
    ['tagging=transparent,', "policy '' is not of the form KEY=VALUE"],
    ['tags=ioctl', "policy 'tags=ioctl': there is no key 'tags', only linux, tagging, untaggable"],
    ['toString=1', "there is no key 'toString'"],
    ['tagging=strict', "policy 'tagging=strict': tagging is one of transparent, require-prot-mte"],
    ['untaggable=Device', 'untaggable is one of reject, device, no-tag-access, unchecked'],
    ['linux=6.12,linux=6.1', "policy 'linux=6.1': linux is given twice"],
  ])("'%s': refused", (text, message) => {
    expect(() => parseKvmPolicy(text)).toThrow(KvmPolicyError);
    expect(() => parseKvmPolicy(text)).toThrow(message);
  });
});

describe('kvmPolicy', () => {
  it('the names of what upstream does', () => {
    expect([linux612.name, linux61.name]).toEqual(['linux-6.12', 'linux-6.1']);
    expect(kvmPolicy().untaggableMemory).toBe('refuse');
  });
});
