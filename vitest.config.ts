/** `npm test`: everything that needs nothing beyond `npm ci`. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts', 'tools/**/*.test.ts', 'bench/**/*.test.ts'],
    exclude: ['test/linux/**', 'node_modules/**'],
    testTimeout: 60_000,
    setupFiles: ['test/support/fast-check.ts'],
  },
});
