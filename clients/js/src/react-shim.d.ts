// The hooks that react.ts uses. The package does not depend on React's types.
declare module 'react' {
  export function useState<T>(initial: T | (() => T)): [T, (next: T | ((old: T) => T)) => void]
  export function useEffect(effect: () => void | (() => void), inputs: readonly unknown[]): void
  export function useCallback<T extends (...args: never[]) => unknown>(callback: T, inputs: readonly unknown[]): T
  export function useRef<T>(initial: T): { current: T }
}
