/** The thin line below an answer, behind the switch "Figures": where the answer comes from, and how fast. */

import { bus } from '../bus.js'
import type { PageClient } from '../client.js'
import { ofBrowser } from '../store/memory.js'
import type { Turn } from '../talk/turn.js'
import { byId } from './dom.js'

const SHOWN = 'tailrace.figures'

export class Figures {
  private readonly toggle = byId<HTMLInputElement>('figures')
  private readonly connections = new Map<string, { transport: string; reconnects: number }>()

  constructor(private readonly client: PageClient) {
    this.toggle.checked = ofBrowser.get(SHOWN) === 'yes'
    bus.on('connection', ({ generation, transport, reconnects }) => this.connections.set(generation, { transport, reconnects }))
  }

  /** `repaint` follows each change of the switch. */
  listen(repaint: () => void): void {
    this.toggle.addEventListener('change', () => {
      ofBrowser.set(SHOWN, this.toggle.checked ? 'yes' : '')
      repaint()
    })
  }

  /** '' while the switch is off. */
  line(turn: Turn): string {
    if (!this.toggle.checked) return ''
    const connection = this.connections.get(turn.id)
    const parts = [
      turn.attempt ? `attempt ${turn.attempt}` : '',
      turn.cursor ? `event ${turn.cursor}` : '',
      connection?.transport ?? (turn.isActive ? this.client.transportInUse : ''),
      turn.sentAt && turn.firstTokenAt ? `first token ${Math.round(turn.firstTokenAt - turn.sentAt)} ms` : '',
      connection?.reconnects ? `${connection.reconnects} reconnects` : '',
      turn.resets ? `${turn.resets} resets` : '',
      turn.id,
    ]
    return parts.filter(Boolean).join(' · ')
  }
}
