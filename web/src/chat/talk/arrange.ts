/**
 * The order of a conversation, and the versions of a prompt that was edited or asked again. Without I/O.
 *
 * The server has a flat list of answers. Those that this page started say in their metadata which answer they
 * replace. All others continue the conversation as it was when they were started.
 */

export interface Link {
  id: string
  /** Seconds. Entries are given from old to new. */
  created_at: number
  /** The answer whose place this one takes; '' continues the conversation. */
  replaces: string
  /** The answer that the reader had before their eyes when they asked; '' is unknown. */
  after: string
}

export interface Place {
  id: string
  /** All answers at this place, from old to new, with this one among them. */
  versions: string[]
}

/**
 * `chosen` has, for the first version of a place, the version that the reader wants to see. Without a wish
 * the conversation goes where its newest answer is.
 */
export function arrange(given: Link[], chosen: ReadonlyMap<string, string> = new Map()): Place[] {
  const links = inOrder(given)
  const parents = new Map<string, string>()
  const children = new Map<string, Link[]>()
  let last = ''
  for (const link of links) {
    const parent = parentOf(link, parents, children, last)
    parents.set(link.id, parent)
    children.set(parent, [...(children.get(parent) ?? []), link])
    last = link.id
  }
  // The place of the newest answer below each answer, as a position in `links`.
  const newest = new Map<string, number>()
  for (let position = links.length - 1; position >= 0; position -= 1) {
    const { id } = links[position] // behind its parent
    const below = newest.get(id) ?? position
    newest.set(id, below)
    const parent = parents.get(id)!
    newest.set(parent, Math.max(newest.get(parent) ?? 0, below))
  }
  const places: Place[] = []
  for (let at = ''; ;) {
    const versions = (children.get(at) ?? []).map(({ id }) => id)
    if (!versions.length) return places
    const wanted = chosen.get(versions[0])
    const latest = versions.reduce((a, b) => (newest.get(b)! > newest.get(a)! ? b : a))
    at = wanted && versions.includes(wanted) ? wanted : latest
    places.push({ id: at, versions })
  }
}

/** The server's times are whole seconds. So what a prompt says about others counts more than its time. */
function inOrder(given: Link[]): Link[] {
  const byId = new Map(given.map((link) => [link.id, link]))
  const ordered = new Set<Link>()
  const begun = new Set<Link>()
  for (const link of given) {
    // A chain may be as long as the conversation, so this is no recursion.
    const chain = [link]
    while (chain.length) {
      const top = chain[chain.length - 1]
      const isNew = !begun.has(top)
      begun.add(top)
      const needed = isNew ? [top.after, top.replaces].flatMap((id) => byId.get(id) ?? []).filter((each) => !begun.has(each)) : []
      if (needed.length) chain.push(...needed)
      else ordered.add(chain.pop()!)
    }
  }
  return [...ordered]
}

function parentOf(link: Link, parents: Map<string, string>, children: Map<string, Link[]>, last: string): string {
  const replaced = parents.get(link.replaces)
  if (link.replaces && replaced !== undefined) return replaced
  // Two people may ask at once: the later prompt follows the earlier one.
  let at = parents.has(link.after) ? link.after : last
  for (;;) {
    const next = (children.get(at) ?? []).filter(({ replaces }) => !replaces)
    if (!next.length || at === '') return at
    at = next[next.length - 1].id
  }
}
