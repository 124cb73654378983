"""Answers in English and Chinese, cut into tokens of the sizes that models write.

Each text is longer than a window of 4 KiB and repeats no sentence, so a compressor finds only what
prose repeats by itself, and the frames around the tokens.
"""

from __future__ import annotations

import re

_ENGLISH = """
A language model writes an answer one token after the other, and a reader wants to see each of
them as soon as it exists. That wish makes streams of tokens an odd kind of traffic: thousands of
tiny messages, each of which carries four or five letters of text inside a frame that is ten times
as long. Whoever pays for the network sees mostly frames. A compressor removes repetition, and
frames repeat, so the idea of compressing such a stream is almost as old as the streams
themselves. Yet most servers switch compression off, because the usual middleware collects bytes
until a block is full, and the reader watches a blank page while the words wait in a buffer.
Flushing after every message cures the delay. What remains is the price. If every connection owns
a compressor, a popular answer is compressed again for each person who reads it, with the same
input and the same result, and the memory for all those dictionaries grows with the audience.
Broadcasting suggests a better arrangement: compress once, and send one signal to everybody.
Television does this, and it also solved the question of latecomers, who have missed what the
picture refers to. From time to time the encoder transmits a complete image, and a receiver that
has just been switched on waits for that moment. Text can borrow the trick. Between two complete
images a newcomer gets plain pieces, which cost more but need no history. Measurements should
decide whether the effort pays. They have to count bytes on the wire rather than bytes in a
benchmark's imagination, they must include processors and memory, and they need languages that
differ in how much a token holds. Chinese puts a word into two characters of three bytes each,
while German glues nouns together until they fill a line. Numbers, code and tables compress
differently again. Finally there is the matter of secrets, since the length of a compressed
message betrays how similar it is to earlier ones.
"""
_CHINESE = """
大型语言模型通过预测下一个词来生成文本。每当模型算出一个新的词元,服务器就把它立刻发送给读者,而不必等待整段回答完成。这样做的好处是用户很快就能看到第一行字,坏处是每一个词元都要带上一段固定的包装,例如事件编号、事件名称以及一对大括号。对于中文来说,一个词元往往只有一到两个汉字,在编码之后占用三到六个字节,而包装却有四十多个字节,因此真正的内容只占很小的一部分。
压缩算法擅长处理重复出现的片段,所以把这些包装压缩掉几乎不需要什么代价。然而压缩也有它的麻烦:如果每个读者都拥有自己的压缩器,那么一千个读者就需要一千份内存,并且同样的字节要被压缩一千遍。更好的办法是让所有读者共享同一份压缩结果,就像电视台只播出一路信号,所有的电视机同时接收。困难在于有些读者中途加入,他们没有看过前面的内容,也就无法理解后面对前文的引用。视频编码用关键帧解决了这个问题,文本流也可以这样做。
除此之外,还要考虑网络断开以后重新连接的情况:读者带着最后一个事件的编号回来,服务器从那里继续发送,一个字也不能多,一个字也不能少。测试人员会在任意一个字节处切断连接,然后检查拼接起来的答案与原文是否完全一致。只有经过这样反复验证的系统,才可以放心地交给真实的用户使用。最后还有安全方面的考虑,因为压缩后的长度会泄露内容之间的相似程度,攻击者若能插入自己的文字并观察长度,就可能逐步猜出秘密。
"""


def english() -> list[str]:
    """Return the English answer in tokens: words with their space, long words in two parts."""
    words = re.findall(r"\s?[^\s]+", " ".join(_ENGLISH.split()))
    return [part for word in words for part in ((word,) if len(word) < 9 else (word[:6], word[6:]))]


def chinese() -> list[str]:
    """Return the Chinese answer in tokens of one or two characters."""
    text = "".join(_CHINESE.split())
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(cuts[-1] + (1 if len(cuts) % 5 in (1, 3) else 2))
    return [text[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]


ANSWERS = {"English": english, "Chinese": chinese}
