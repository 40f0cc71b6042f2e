/** `npm run test:linux`: Debian's kernel, fetched once. One file at a time: each boots machines. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/linux/**/*.test.ts'],
    testTimeout: 600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
});
