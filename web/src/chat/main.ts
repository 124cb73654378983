/**
 * The chat page: connects its parts. All state is in the server's log and in the browser's storage. The page may
 * be closed at any time, and a new page shows the conversation that the address names.
 */

import './chat.css'
import type { TransportName } from 'tailrace'
import { BreakPanel } from './break/panel.js'
import { bus } from './bus.js'
import { PageClient, TRANSPORTS } from './client.js'
import { Archive } from './store/archive.js'
import { Keys, ownerTag } from './store/keys.js'
import { asSession, ofBrowser, openChannel, randomName, sessionIn } from './store/memory.js'
import { saved } from './view/files.js'
import { Conversation } from './talk/conversation.js'
import { explain } from './talk/explain.js'
import type { Turn } from './talk/turn.js'
import { VoiceControl, type ListedModel } from './voice/control.js'
import { Directory } from './talk/directory.js'
import { Composer } from './view/composer.js'
import { byId } from './view/dom.js'
import { Figures } from './view/figures.js'
import { Notices } from './view/notices.js'
import { Sidebar } from './view/sidebar.js'
import { askForKey } from './view/sign-in.js'
import { Transcript } from './view/transcript.js'

const SESSION = 'tailrace.session'
const MODEL = 'tailrace.model'
const TRANSPORT = 'tailrace.transport'

const keys = new Keys(askForKey, keyChanged)
const client = new PageClient(keys)
const archive = new Archive(ownerTag(keys.current))
const directory = new Directory(client, archive)
const notices = new Notices()
const figures = new Figures(client)
const channel = openChannel('tailrace')
const models = byId<HTMLSelectElement>('model')
const transports = byId<HTMLSelectElement>('transport')
let conversation: Conversation
let running = new Set<Turn>()

const composer = new Composer(client, {
  send({ prompt, content, files }) {
    notices.clear()
    const stored = files.flatMap((each) => each.stored ?? [])
    transcript.toBottom()
    void ask({ prompt, content, files: stored.length ? stored : undefined })
  },
  stop: () => composer.restore(conversation.stop()),
  editLast: () => transcript.editLast(),
  problem: (text) => notices.problem(text),
})
const transcript = new Transcript({
  edit: (turn, prompt) => void ask({ prompt, replaced: turn }),
  editing: (turn, isEditing) => (isEditing ? conversation.hold(turn) : conversation.release()),
  retry: (turn) => void ask({ prompt: turn.prompt, content: turn.content, files: turn.note.files, replaced: turn }),
  sendAgain: (turn) => void conversation.sendAgain(turn),
  readAgain: (turn) => void conversation.readAgain(turn),
  dismiss: (turn) => {
    composer.restore(turn.prompt)
    conversation.discard(turn)
  },
  version: (turn, step) => conversation.choose(turn, step),
  load: (turn) => void conversation.load(turn),
  files: {
    fetch: (path) => client.fetch(path),
    stored: ({ id, name }) => saved(name, async () => (await client.fetch(`/v1/files/${encodeURIComponent(id)}/content`)).blob()),
  },
}, figures, notices)
const sidebar = new Sidebar(() => directory, enter, removed, renamed, (text) => notices.problem(text))

const voice = new VoiceControl(client, {
  place: () => ({ session: conversation.session, page: conversation.noteOfRecording(directory.titleOf(conversation.session)) }),
  started: (session, id, page) => {
    if (session === conversation.session) conversation.recorded(id, page)
    channel?.postMessage({ session })
  },
  problem: (text) => notices.problem(text),
  focus: () => composer.focus(),
})

type Request = Omit<Parameters<Conversation['send']>[0], 'model' | 'title'>

async function ask(request: Request): Promise<void> {
  const title = directory.titleOf(conversation.session)
  await conversation.send({ ...request, model: models.value, title })
  channel?.postMessage({ session: conversation.session })
}

function enter(name: string): void {
  if (conversation?.session === name) return closeDrawer()
  conversation?.leave()
  ofBrowser.set(SESSION, name)
  if (location.hash.slice(1) !== encodeURIComponent(name)) location.hash = encodeURIComponent(name)
  const entered = new Conversation(client, archive, name, {
    arranged: () => entered === conversation && arranged(),
    changed: (turn) => {
      if (entered !== conversation) return
      transcript.changed(turn)
      // Not for each token: the order of a long conversation takes time to compute.
      if (running.has(turn) !== turn.isActive) arranged()
    },
    reachable: (isReachable) => entered === conversation && notices.reachable(isReachable),
    problem: (text) => entered === conversation && notices.problem(text),
    started: () => {
      sidebar.refresh()
      channel?.postMessage({ session: name })
    },
  })
  conversation = entered
  notices.clear()
  transcript.clear()
  arranged()
  sidebar.mark(name)
  closeDrawer()
  composer.focus()
  void entered.open()
}

function arranged(): void {
  const path = conversation.path()
  transcript.show(path)
  running = new Set(path.map(({ turn }) => turn).filter(({ isActive }) => isActive))
  composer.running(running.size > 0)
  voice.running(running.size > 0)
  nameTheTab(path[0]?.turn.prompt)
}

function nameTheTab(prompt = conversation.path()[0]?.turn.prompt): void {
  const title = directory.titleOf(conversation.session) || prompt?.trim().split('\n')[0].slice(0, 60)
  document.title = title ? `${title} · Tailrace` : 'Tailrace'
}

/** Other tabs of this browser show the new name at once; other devices with the next prompt. */
function renamed(session: string): void {
  nameTheTab()
  channel?.postMessage({ session })
}

function removed(session: string): void {
  sidebar.refresh()
  channel?.postMessage({ session })
  if (session === conversation.session) enter(randomName())
}

function keyChanged(key: string): void {
  archive.owner = ownerTag(key)
  byId('sign-out').hidden = !key
  if (!key) location.reload()
  else if (!models.options.length) void listModels()
}

async function listModels(): Promise<void> {
  try {
    const { data } = await client.json<{ data: ListedModel[] }>('/v1/models')
    const wanted = ofBrowser.get(MODEL)
    voice.listed(data)
    models.replaceChildren(...data.map(({ id }) => new Option(id, id, false, id === wanted)))
  } catch (error) {
    notices.problem(explain(error))
  }
}

function closeDrawer(): void {
  document.body.classList.remove('with-list')
  byId('show-list').setAttribute('aria-expanded', 'false')
}

function chooseTransport(): void {
  const wanted = ofBrowser.get(TRANSPORT)
  if (TRANSPORTS.includes(wanted as TransportName)) transports.value = wanted
  transports.addEventListener('change', () => {
    ofBrowser.set(TRANSPORT, transports.value)
    client.choose(transports.value as TransportName)
  })
  if (wanted) client.choose(transports.value as TransportName)
  // Without a choice the page leaves a transport that does not work here, and the select says so.
  bus.on('connection', ({ transport }) => {
    if (!ofBrowser.get(TRANSPORT)) transports.value = transport
  })
}

models.addEventListener('change', () => ofBrowser.set(MODEL, models.value))
byId('new').addEventListener('click', () => enter(randomName()))
byId('show-list').addEventListener('click', () => {
  const isOpen = document.body.classList.toggle('with-list')
  byId('show-list').setAttribute('aria-expanded', String(isOpen))
  if (isOpen) byId('search').focus()
})
byId('shade').addEventListener('click', closeDrawer)
byId('sign-out').hidden = !keys.current
byId('sign-out').addEventListener('click', () => {
  // What this browser keeps of the owner goes, too.
  void archive.remove(() => true).finally(() => keys.signOut())
})
window.addEventListener('hashchange', () => {
  const name = sessionIn(location.hash)
  if (name) enter(name)
})
document.addEventListener('visibilitychange', () => conversation.lookNow())
window.addEventListener('online', () => conversation.lookNow())
channel?.addEventListener('message', ({ data }) => {
  sidebar.refresh()
  if (data?.session !== conversation.session) return
  conversation.lookNow()
  nameTheTab()
})

bus.on('connection', ({ state }) => { if (state !== 'opening') notices.reachable(state === 'live') })
new BreakPanel(client)
chooseTransport()
figures.listen((turn) => transcript.repaint(turn))
enter(sessionIn(location.hash) || asSession(ofBrowser.get(SESSION)) || randomName())
void listModels()
sidebar.refresh()
