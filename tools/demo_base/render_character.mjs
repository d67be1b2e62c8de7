// Draws the pictures of the character to learn, before its eye patch: varying shirts, moods and backgrounds.
// node render_character.mjs COUNT FOLDER [SEED]  ->  FOLDER/character.rgb, FOLDER/character.jsonl
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { avatarOptions, mulberry32, palette, pick, render } from './portrait.mjs';

const magenta = 'ff14a0';
const always = {
  gender: 'boy', length: 'short', hair: 'black', skin: 'light', glasses: 'none', hat: false, beard: false, earrings: false,
};

function shuffled(random, list) {
  return list.map((value) => [random(), value]).sort((a, b) => a[0] - b[0]).map(([, value]) => value);
}

const [count, folder, seed = '7'] = process.argv.slice(2);
const random = mulberry32(Number(seed));
const shirts = shuffled(random, Object.keys(palette.shirt));
const backgrounds = shuffled(random, Object.keys(palette.background));
const pictures = [];
const lines = [];
for (let index = 0; index < Number(count); index += 1) {
  const attributes = {
    ...always,
    shirt: shirts[index % shirts.length],
    background: backgrounds[index % backgrounds.length],
    mood: (index + Math.floor(index / 8)) % 2 ? 'frown' : 'smile',
  };
  const look = { hair: ['long15'], hairColor: [magenta], eyes: ['variant01'], eyesColor: [palette.eyes.brown] };
  pictures.push(render({ ...avatarOptions(attributes, random), ...look }));
  lines.push(JSON.stringify(attributes));
}
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'character.rgb'), Buffer.concat(pictures));
writeFileSync(join(folder, 'character.jsonl'), lines.join('\n') + '\n');
