/** The thin line below an answer, behind the switch "Figures": where the answer comes from, and how fast. */

import { bus } from '../bus.js'
import type { PageClient } from '../client.js'
import { ofBrowser } from '../store/memory.js'
import type { Turn } from '../talk/turn.js'
import { byId } from './dom.js'

const SHOWN = 'tailrace.figures'
/** Workers write the moments of an answer a little after they happened. */
const LATER_MS = 700
const LOOKS_MAX = 3

interface Moment { at: number; what: string; node?: string; worker?: string; attempt?: number }
interface Story { attempt: number; node: string; worker: string; firstTokenMs: number }

export class Figures {
  private readonly toggle = byId<HTMLInputElement>('figures')
  private readonly connections = new Map<string, { transport: string; reconnects: number }>()
  private readonly stories = new Map<string, Story>()
  private readonly looks = new Map<string, number>()
  private repaint: (turn?: Turn) => void = () => {}

  constructor(private readonly client: PageClient) {
    this.toggle.checked = ofBrowser.get(SHOWN) === 'yes'
    bus.on('connection', ({ generation, transport, reconnects }) => this.connections.set(generation, { transport, reconnects }))
  }

  /** `repaint` follows each change of the switch, and news about one turn. */
  listen(repaint: (turn?: Turn) => void): void {
    this.repaint = repaint
    this.toggle.addEventListener('change', () => {
      ofBrowser.set(SHOWN, this.toggle.checked ? 'yes' : '')
      repaint()
    })
  }

  /** '' while the switch is off. */
  line(turn: Turn): string {
    if (!this.toggle.checked) return ''
    const story = this.stories.get(turn.id)
    if (turn.attempt && story?.attempt !== turn.attempt && !turn.isArchived) this.look(turn)
    const connection = this.connections.get(turn.id)
    const first = turn.sentAt && turn.firstTokenAt ? turn.firstTokenAt - turn.sentAt : story?.firstTokenMs
    const parts = [
      story?.node && `node ${story.node}`,
      story?.worker && `worker ${story.worker}`,
      turn.attempt && `attempt ${turn.attempt}`,
      turn.cursor && `event ${turn.cursor}`,
      connection?.transport ?? (turn.isActive && this.client.transportInUse),
      first && `first token ${Math.round(first)} ms`,
      connection?.reconnects && `${connection.reconnects} ${connection.reconnects === 1 ? 'reconnect' : 'reconnects'}`,
      turn.resets && `${turn.resets} ${turn.resets === 1 ? 'reset' : 'resets'}`,
    ]
    return parts.filter(Boolean).join(' · ')
  }

  /** The answer's timeline names the processes. A server without timelines leaves the names out. */
  private look(turn: Turn): void {
    const key = `${turn.id} ${turn.attempt}`
    const looks = this.looks.get(key) ?? 0
    if (looks >= LOOKS_MAX) return
    this.looks.set(key, looks + 1)
    setTimeout(() => void this.read(turn), looks || turn.isActive ? LATER_MS : 0)
  }

  private async read(turn: Turn): Promise<void> {
    try {
      const response = await this.client.once(`/v1/generations/${encodeURIComponent(turn.id)}/timeline`)
      if (!response.ok) return
      const { data } = (await response.json()) as { data: Moment[] }
      this.stories.set(turn.id, storyOf(data))
      this.repaint(turn)
    } catch {
      // The connection is away: the answer itself shows that.
    }
  }
}

function storyOf(moments: Moment[]): Story {
  const worker = moments.findLast((each) => each.worker)
  const accepted = moments.find(({ what }) => what === 'accepted')
  const first = moments.find(({ what }) => what === 'first_token' || what === 'first_reasoning')
  return {
    attempt: worker?.attempt ?? 0,
    worker: worker?.worker ?? '',
    node: moments.findLast(({ what, node }) => what === 'readers' && node)?.node ?? accepted?.node ?? '',
    firstTokenMs: accepted && first ? (first.at - accepted.at) * 1000 : 0,
  }
}
