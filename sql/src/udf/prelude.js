// Runs before the script of a rule, and makes its world one in which a row becomes the same today and tomorrow: no chance, no
// clock but the time of the change, no zone but UTC. What it hands back is called from outside: `seal` once the script has
// run, so that no row changes what the next one finds, and `setNow` with the time of each change.
//
// Whatever is used after the script ran is taken hold of here: a script may have replaced it.
(function (longest) {
  'use strict';
  const { apply, construct, ownKeys } = Reflect;
  const { create, defineProperty, freeze, getOwnPropertyDescriptor, getPrototypeOf } = Object;
  const hide = (target, key, value) => defineProperty(target, key, { value, writable: true, enumerable: false, configurable: true });

  // Chance, and what waits for other threads or later.
  delete Math.random;
  delete globalThis.Atomics;
  delete globalThis.SharedArrayBuffer;
  delete globalThis.queueMicrotask;

  // These go over every index up to the length without ever being asked to stop, and a length is easily set.
  const bounded = (value) => {
    if (value !== null && typeof value === 'object' && value.length > longest) {
      throw new RangeError('the array is too long');
    }
  };
  const endless = [
    'concat', 'copyWithin', 'fill', 'flat', 'join', 'reverse', 'shift', 'slice', 'sort', 'splice', 'toLocaleString', 'toReversed',
    'toSorted', 'toSpliced', 'unshift', 'with',
  ];
  for (const name of endless) {
    const native = Array.prototype[name];
    const { [name]: method } = {
      [name]() {
        bounded(this);
        for (let i = 0; i < arguments.length; i++) {
          bounded(arguments[i]);
        }
        return apply(native, this, arguments);
      },
    };
    hide(Array.prototype, name, method);
  }

  // The time of the change, and UTC as the only zone.
  const NativeDate = Date;
  const native = NativeDate.prototype;
  const { parse, UTC } = NativeDate;
  const { getTime, getUTCFullYear, setUTCFullYear, toUTCString } = native;
  let now = 0;
  const zoned = /(?:z|utc?|gmt|[+-]\d\d:?\d\d)[^\d]*$/i;
  const read = (text) => {
    if (!zoned.test(text)) {
      for (const zone of ['Z', ' UTC']) {
        const time = parse(text + zone);
        if (time === time) {
          return time;
        }
      }
    }
    return parse(text);
  };
  // What a date is made of where an object is given: as the language has it, but the text of an object is read as any text is.
  const { toPrimitive } = Symbol;
  const plain = (value) => {
    if (value === null || typeof value !== 'object' && typeof value !== 'function') {
      return value;
    }
    if (value instanceof NativeDate) {
      return apply(getTime, value, []);
    }
    const ways = [value[toPrimitive] && (() => value[toPrimitive]('default')), () => value.valueOf(), () => value.toString()];
    for (const way of ways) {
      const made = way ? way() : value;
      if (made === null || typeof made !== 'object' && typeof made !== 'function') {
        return made;
      }
    }
    throw new TypeError('the object has no primitive value');
  };
  const LogDate = function Date(first) {
    if (new.target === undefined) {
      return new LogDate().toString();
    }
    let time = now;
    if (arguments.length > 1) {
      time = apply(UTC, NativeDate, arguments);
    } else if (arguments.length === 1) {
      const value = plain(first);
      time = typeof value === 'string' ? read(value) : value;
    }
    return construct(NativeDate, [time], new.target);
  };
  defineProperty(LogDate, 'length', { value: 7 });
  defineProperty(LogDate, 'prototype', { value: native, writable: false });
  hide(LogDate, 'now', { now() { return now; } }.now);
  hide(LogDate, 'parse', { parse(text) { return read(`${text}`); } }.parse);
  hide(LogDate, 'UTC', UTC);
  hide(native, 'constructor', LogDate);
  for (const part of ['Date', 'Day', 'FullYear', 'Hours', 'Milliseconds', 'Minutes', 'Month', 'Seconds']) {
    hide(native, 'get' + part, native['getUTC' + part]);
    if (part !== 'Day') {
      hide(native, 'set' + part, native['setUTC' + part]);
    }
  }
  // `Thu, 01 Jan 1970 00:00:00 GMT`
  const pieces = (date) => apply(toUTCString, date, []).split(' ');
  const methods = {
    getTimezoneOffset() { return apply(getUTCFullYear, this, []) * 0; },
    getYear() { return apply(getUTCFullYear, this, []) - 1900; },
    setYear(year) { return apply(setUTCFullYear, this, [year >= 0 && year <= 99 ? 1900 + Math.trunc(year) : year]); },
    toDateString() {
      const [weekday, day, month, year] = pieces(this);
      return day === 'Date' ? 'Invalid Date' : `${weekday.slice(0, 3)} ${month} ${day} ${year}`;
    },
    toTimeString() {
      const time = pieces(this)[4];
      return time === undefined ? 'Invalid Date' : `${time} GMT+0000`;
    },
    toString() {
      const day = methods.toDateString.call(this);
      return day === 'Invalid Date' ? day : `${day} ${methods.toTimeString.call(this)}`;
    },
    toLocaleString() { return methods.toString.call(this); },
    toLocaleDateString() { return methods.toDateString.call(this); },
    toLocaleTimeString() { return methods.toTimeString.call(this); },
  };
  for (const name of ownKeys(methods)) {
    hide(native, name, methods[name]);
  }
  hide(globalThis, 'Date', LogDate);

  // Everything that the language brings, also what has no name.
  const asyncGenerator = (async function* () {}).constructor;
  const roots = [
    (function* () {}).constructor, (async () => {}).constructor, asyncGenerator, getPrototypeOf(Int8Array),
    getPrototypeOf(getPrototypeOf(asyncGenerator.prototype.prototype)), getPrototypeOf([][Symbol.iterator]()),
    getPrototypeOf(''[Symbol.iterator]()), getPrototypeOf(new Map()[Symbol.iterator]()), getPrototypeOf(new Set()[Symbol.iterator]()),
    getPrototypeOf(''.matchAll(/a/g)), Iterator.prototype, getPrototypeOf(Iterator.from({ next() {} })), getPrototypeOf([].values().map(String)),
  ];
  const names = ownKeys(globalThis);
  // An own property stands over one of these, which a frozen one would not let it by an assignment: `error.name = …`.
  const inherited = [
    Object.prototype, Error.prototype, AggregateError.prototype, EvalError.prototype, RangeError.prototype, ReferenceError.prototype,
    SyntaxError.prototype, TypeError.prototype, URIError.prototype,
  ];
  const seen = new Set();
  const { add, has } = Set.prototype;

  const overridable = (prototype) => {
    const keys = ownKeys(prototype);
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i];
      const property = getOwnPropertyDescriptor(prototype, key);
      if (!property.configurable || !('value' in property)) {
        continue;
      }
      const { value, enumerable } = property;
      defineProperty(prototype, key, {
        get() { return value; },
        set(own) {
          if (this === prototype) {
            throw new TypeError('what the language brings cannot be changed');
          }
          defineProperty(this, key, { value: own, writable: true, enumerable: true, configurable: true });
        },
        enumerable,
        configurable: false,
      });
    }
  };

  const seal = () => {
    // Without a prototype, so that nothing stands between an index and its place.
    const queue = create(null);
    let length = 0;
    const reach = (value) => {
      if (value !== null && (typeof value === 'object' || typeof value === 'function') && !apply(has, seen, [value])) {
        apply(add, seen, [value]);
        queue[length++] = value;
      }
    };
    for (let i = 0; i < inherited.length; i++) {
      overridable(inherited[i]);
    }
    for (let i = 0; i < roots.length; i++) {
      reach(roots[i]);
    }
    for (let i = 0; i < names.length; i++) {
      const property = getOwnPropertyDescriptor(globalThis, names[i]);
      if (property !== undefined && property.value !== globalThis) {
        reach(property.value);
        reach(property.get);
        reach(property.set);
      }
    }
    for (let next = 0; next < length; next++) {
      const value = queue[next];
      // An array over memory, of a script's own making: it cannot be frozen.
      if (ArrayBuffer.isView(value)) {
        continue;
      }
      freeze(value);
      reach(getPrototypeOf(value));
      const keys = ownKeys(value);
      for (let i = 0; i < keys.length; i++) {
        const property = getOwnPropertyDescriptor(value, keys[i]);
        if (property !== undefined) {
          reach(property.value);
          reach(property.get);
          reach(property.set);
        }
      }
    }
    freeze(globalThis);
  };
  return { seal, setNow: (time) => { now = time; } };
})
