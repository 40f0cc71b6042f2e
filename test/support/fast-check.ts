/**
 * Set up before every test file: arrays of a property are as long as their `maxLength` says. By
 * itself fast-check draws short ones only, and few states of a machine are a few steps away.
 */
import fc from 'fast-check';

fc.configureGlobal({ defaultSizeToMaxWhenMaxSpecified: true });
