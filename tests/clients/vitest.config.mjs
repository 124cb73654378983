export default { test: { include: ["durable-streams.test.mjs"], testTimeout: 60_000 } }
