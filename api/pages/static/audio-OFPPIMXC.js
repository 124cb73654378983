import{a,b}from"./chunk-UWLYWL4B.js";import"./chunk-4FZZTXXG.js";import"./chunk-OOJM4CTU.js";export{b as Recording,a as TailraceAudio};
