// Checks a librechat.yaml with LibreChat's own schema: the file on stdin, the mistakes on stdout.
import { readFileSync } from 'node:fs';
import { configSchema } from 'librechat-data-provider';
import yaml from 'js-yaml';

const { success, error } = configSchema.strict().safeParse(yaml.load(readFileSync(0, 'utf8')));
console.log(JSON.stringify(success ? [] : error.issues.map((issue) => issue.path.join('.'))));
