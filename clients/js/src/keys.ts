/** A random idempotency key, also in pages without TLS, which have no `randomUUID`. */
export function randomKey(): string {
  const source: Partial<Crypto> | undefined = globalThis.crypto
  if (source?.randomUUID) return source.randomUUID()
  const part = () => Math.random().toString(36).slice(2, 12)
  return `${part()}-${part()}-${part()}`
}
