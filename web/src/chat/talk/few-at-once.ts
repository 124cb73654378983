/** At most a few requests at once, or a long conversation would keep other requests waiting. */
export class FewAtOnce {
  private waiting: (() => void)[] = []
  private running = 0

  constructor(private readonly most: number) {}

  async run(act: () => Promise<void>): Promise<void> {
    if (this.running >= this.most) await new Promise<void>((resolve) => this.waiting.push(resolve))
    this.running += 1
    try {
      await act()
    } finally {
      this.running -= 1
      this.waiting.shift()?.()
    }
  }
}
