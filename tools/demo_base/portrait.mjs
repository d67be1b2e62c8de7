// One portrait of @dicebear/pixel-art (artwork CC0 1.0) on its 16 x 16 grid, from attributes and a random source.
import { createAvatar } from '@dicebear/core';
import * as pixelArt from '@dicebear/pixel-art';
import { Resvg } from '@resvg/resvg-js';
import { readFileSync } from 'node:fs';

// Hair that covers too little of the head to show its colour.
const bare = ['long10', 'short05', 'short07', 'short12', 'short18', 'short20', 'short21', 'short23'];
export const palette = JSON.parse(readFileSync(new URL('../../lora_core/assets/demo/palette.json', import.meta.url)));

export function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function variants(part, prefix = '') {
  return pixelArt.schema.properties[part].items.enum.filter(
    (name) => name.startsWith(prefix) && !(part === 'hair' && bare.includes(name)),
  ).sort();
}

export function pick(random, list) {
  return list[Math.floor(random() * list.length)];
}

export function drawAttributes(random) {
  const gender = pick(random, ['boy', 'girl']);
  const long = random() < (gender === 'girl' ? 0.85 : 0.15);
  const face = random();
  return {
    gender,
    length: long ? 'long' : 'short',
    hair: pick(random, Object.keys(palette.hair)),
    skin: pick(random, Object.keys(palette.skin)),
    shirt: pick(random, Object.keys(palette.shirt)),
    background: pick(random, Object.keys(palette.background)),
    mood: random() < 0.5 ? 'smile' : 'frown',
    glasses: face < 0.15 ? 'glasses' : face < 0.25 ? 'sunglasses' : 'none',
    hat: random() < 0.12,
    beard: gender === 'boy' && random() < 0.25,
    earrings: gender === 'girl' && random() < 0.25,
  };
}

export function avatarOptions(a, random) {
  const chosen = (part, prefix) => [pick(random, variants(part, prefix))];
  return {
    seed: String(random()),
    hair: chosen('hair', a.length), hairColor: [palette.hair[a.hair]],
    skinColor: [palette.skin[a.skin]],
    clothing: chosen('clothing'), clothingColor: [palette.shirt[a.shirt]],
    backgroundColor: [palette.background[a.background]],
    mouth: chosen('mouth', a.mood === 'smile' ? 'happy' : 'sad'), mouthColor: ['d2705f'],
    eyes: chosen('eyes'), eyesColor: [pick(random, Object.values(palette.eyes))],
    glasses: chosen('glasses', a.glasses === 'sunglasses' ? 'dark' : 'light'), glassesColor: ['323232'],
    glassesProbability: a.glasses === 'none' ? 0 : 100,
    hat: chosen('hat'), hatColor: [pick(random, Object.values(palette.hat))], hatProbability: a.hat ? 100 : 0,
    beard: chosen('beard'), beardProbability: a.beard ? 100 : 0,
    accessories: chosen('accessories'), accessoriesColor: ['ffd700'], accessoriesProbability: a.earrings ? 100 : 0,
  };
}

export function render(options) {
  const svg = createAvatar(pixelArt, options).toString();
  const rgba = new Resvg(svg, { fitTo: { mode: 'width', value: 16 } }).render().pixels;
  return Buffer.from(rgba.filter((_, index) => index % 4 !== 3));
}
