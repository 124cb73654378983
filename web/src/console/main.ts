/** The entry of the operators' console: its page loads /page/console.js. */
export {}
