// Checks values against a JSON schema, by the keywords that `run_schema.json` uses.

/** What a value breaks: `path` leads to the place in the value. */
export class SchemaFault {
  constructor(path, expected) {
    this.path = path;
    this.expected = expected;
  }

  toString() {
    return `${this.path.join(".") || "the whole"} must be ${this.expected}`;
  }
}

const TYPES = {
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  array: Array.isArray,
  string: (value) => typeof value === "string",
  integer: Number.isInteger,
  number: Number.isFinite,
  boolean: (value) => typeof value === "boolean",
  null: (value) => value === null,
};
const WITHOUT_EFFECT = ["$schema", "$defs", "title"];

/** Returns the first fault of a value, or null. Throws for a schema with a keyword that is not known. */
export function faultOf(value, schema, root = schema, path = []) {
  for (const [keyword, rule] of Object.entries(schema)) {
    if (WITHOUT_EFFECT.includes(keyword)) continue;
    const fault = KEYWORDS[keyword](value, rule, root, path);
    if (fault !== null) return fault;
  }
  return null;
}

const KEYWORDS = {
  $ref: (value, name, root, path) => faultOf(value, root.$defs[name.replace("#/$defs/", "")], root, path),
  type: (value, type, root, path) => unless(TYPES[type](value), path, `of the type ${type}`),
  const: (value, expected, root, path) => unless(value === expected, path, JSON.stringify(expected)),
  enum: (value, known, root, path) => unless(known.includes(value), path, `one of ${known.join(", ")}`),
  minimum: (value, least, root, path) => unless(typeof value !== "number" || value >= least, path, `at least ${least}`),
  maximum: (value, most, root, path) => unless(typeof value !== "number" || value <= most, path, `at most ${most}`),
  maxLength: (value, most, root, path) => unless(typeof value !== "string" || [...value].length <= most, path, `of at most ${most} characters`),
  pattern: (value, pattern, root, path) => unless(typeof value !== "string" || new RegExp(pattern, "u").test(value), path, `like ${pattern}`),
  minItems: (value, least, root, path) => unless(!Array.isArray(value) || value.length >= least, path, `a list of at least ${least}`),
  maxItems: (value, most, root, path) => unless(!Array.isArray(value) || value.length <= most, path, `a list of at most ${most}`),
  items: (value, rule, root, path) => (Array.isArray(value) ? first(value.entries(), ([place, one]) => faultOf(one, rule, root, [...path, place])) : null),
  prefixItems: (value, rules, root, path) =>
    Array.isArray(value) ? first(value.slice(0, rules.length).entries(), ([place, one]) => faultOf(one, rules[place], root, [...path, place])) : null,
  required: (value, names, root, path) =>
    TYPES.object(value) ? first(names, (name) => unless(Object.hasOwn(value, name), [...path, name], "there")) : null,
  properties: (value, rules, root, path) =>
    TYPES.object(value) ? first(Object.entries(rules), ([name, rule]) => (Object.hasOwn(value, name) ? faultOf(value[name], rule, root, [...path, name]) : null)) : null,
  propertyNames: (value, rule, root, path) =>
    TYPES.object(value) ? first(Object.keys(value), (name) => faultOf(name, rule, root, [...path, name])) : null,
  anyOf: (value, options, root, path) => {
    const faults = [];
    for (const option of options) {
      const fault = faultOf(value, option, root, path);
      if (fault === null) return null;
      faults.push(fault);
    }
    // That of the option that the value fits longest says most.
    return faults.reduce((one, other) => (other.path.length > one.path.length ? other : one));
  },
};

function unless(holds, path, expected) {
  return holds ? null : new SchemaFault(path, expected);
}

function first(items, faultOfItem) {
  for (const item of items) {
    const fault = faultOfItem(item);
    if (fault !== null) return fault;
  }
  return null;
}
