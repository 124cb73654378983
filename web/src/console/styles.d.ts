/** The bundler makes a file of the styles that a script imports. */
declare module '*.css'
