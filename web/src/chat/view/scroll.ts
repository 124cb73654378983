/** The list follows the newest text only while its reader is at the bottom. */

import { afterPaint } from './frames.js'

const NEAR_PX = 48

export class Scroll {
  private isPinned = true
  private lastTop = 0

  /** `content` is the one child of `list`: formulas and pictures make it higher after it was painted. */
  constructor(private readonly list: HTMLElement, content: HTMLElement, private readonly jump: HTMLButtonElement) {
    list.addEventListener('scroll', () => this.look(), { passive: true })
    jump.addEventListener('click', () => this.toBottom())
    const observer = new ResizeObserver(() => this.follow())
    observer.observe(list)
    observer.observe(content)
    afterPaint(() => this.follow())
  }

  toBottom(): void {
    this.isPinned = true
    this.follow()
  }

  follow(): void {
    if (this.isPinned) this.list.scrollTop = this.list.scrollHeight
    this.jump.hidden = this.isPinned
  }

  private look(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.list
    const isAtBottom = scrollHeight - scrollTop - clientHeight < NEAR_PX
    // Only the reader moves the list up. New text moves the bottom away, which is no wish to stay here.
    if (isAtBottom) this.isPinned = true
    else if (scrollTop < this.lastTop - 1) this.isPinned = false
    this.lastTop = scrollTop
    this.jump.hidden = this.isPinned
  }
}
