// SPDX-License-Identifier: Apache-2.0
// The Node form of this module: a line for every room, every few seconds.
'use strict';

module.exports = (config) => {
  const timer = setInterval(() => {
    for (const room of config.rooms) console.log(`lights: ${room} is as it should be`);
  }, config.every_seconds * 1000);
  return { stop: () => clearInterval(timer) };
};
