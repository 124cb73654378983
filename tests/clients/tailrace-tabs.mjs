// One tab of a page: it reads the generation that it is told to, over the connection that the tabs share.
import { Tailrace } from '../../clients/js/dist/index.js'
import { shareAmongTabs } from '../../clients/js/dist/tabs.js'

const { url } = window.options
const make = () => new Tailrace({ url })
const client = new Tailrace({ url, transport: shareAmongTabs(url, make) })

window.said = { events: [], text: undefined, error: undefined }
window.read = async (id) => {
  try {
    const answer = client.attach(id)
    for await (const event of answer) window.said.events.push(event)
    window.said.text = (await answer.result()).text
  } catch (error) {
    window.said.error = { code: error.code, retryable: error.retryable }
  }
}
