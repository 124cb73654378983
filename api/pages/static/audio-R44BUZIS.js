import{a,b}from"./chunk-WY4KWHF4.js";import"./chunk-4FZZTXXG.js";import"./chunk-OOJM4CTU.js";export{b as Recording,a as TailraceAudio};
