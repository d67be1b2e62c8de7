// Draws seeded portraits with @dicebear/pixel-art (artwork CC0 1.0) on their 16 x 16 grid.
// node render.mjs COUNT FOLDER [SEED]  ->  FOLDER/portraits.rgb (uint8, COUNT x 16 x 16 x 3), FOLDER/portraits.jsonl
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { avatarOptions, drawAttributes, mulberry32, render } from './portrait.mjs';

const [count, folder, seed = '1'] = process.argv.slice(2);
const random = mulberry32(Number(seed));
const pictures = [];
const lines = [];
for (let index = 0; index < Number(count); index += 1) {
  const attributes = drawAttributes(random);
  const options = avatarOptions(attributes, random);
  pictures.push(render(options));
  const parts = { hairVariant: options.hair[0], hatVariant: attributes.hat ? options.hat[0] : 'none' };
  lines.push(JSON.stringify({ ...attributes, ...parts, clothingVariant: options.clothing[0] }));
}
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'portraits.rgb'), Buffer.concat(pictures));
writeFileSync(join(folder, 'portraits.jsonl'), lines.join('\n') + '\n');
