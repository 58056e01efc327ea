/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.wire;

import io.airlift.slice.Slice;

import java.nio.ByteBuffer;
import java.util.zip.CRC32C;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

/**
 * Layout and checksum of the protocol's page frame. {@link ReadStream} and {@link PageBatch} read
 * and write streams of frames.
 */
public final class PageFrame
{
    public static final int HEADER_SIZE = 12;
    /** Values from this one on identify record types instead of partitions. */
    public static final int FIRST_RESERVED = 0xFFFF_FF00;

    private PageFrame() {}

    public static int crc(int partition, Slice page)
    {
        return crc(partition, page.byteArray(), page.byteArrayOffset(), page.length());
    }

    static int crc(int partition, byte[] bytes, int offset, int length)
    {
        CRC32C crc = new CRC32C();
        crc.update(ByteBuffer.allocate(8).order(LITTLE_ENDIAN)
                .putInt(partition)
                .putInt(length)
                .flip());
        crc.update(bytes, offset, length);
        return (int) crc.getValue();
    }
}
